"""Which tensors of the fp32 graphs would not fit into fp16, found by running them on warm streams of real speech.

It has to be looked for: the fp16 graph run on a CPU would not show it, because onnxruntime's CPU provider has few half
kernels, folds the casts and computes in f32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.probe import Probe, ProbedSession
from nemoport.calibration.stream import CalibrationStreams, StreamPlan
from nemoport.decode import GreedyState, greedy
from nemoport.errors import ArtifactError
from nemoport.progress import Progress
from nemoport.quantize.graph import float_tensors, load_structure
from nemoport.spec import context_name

FP16_MAX = 65504.0


@dataclass(frozen=True)
class Scan:
    """Largest magnitude of each tensor scanned, by name."""

    encoder: dict[str, float]
    decoder: dict[str, float]


def scan_activations(
    parent: Artifact, streams: CalibrationStreams, ops: Iterable[str], progress: Progress, threads: int | None = None
) -> Scan:
    """Decodes one spoken and one fading stream at each lookahead, cold starts included, and keeps the extremes of what
    the nodes of the kinds `ops` read and yield.

    Maxima are found inside the graphs, so memory is that of a plain run. Raises ArtifactError if a value is not finite.
    """
    names = [float_tensors(load_structure(path), ops) for path in (parent.encoder, parent.decoder)]
    encoder = Probe(parent.encoder, names[0], max_abs=True, threads=threads)
    decoder = Probe(parent.decoder, names[1], max_abs=True, threads=threads)
    session = _Watching(parent, encoder, decoder)
    plans = list(one_of_each(streams.plans))
    for i, plan in enumerate(plans):
        progress(f"fp16: overflow scan, stream {i + 1} of {len(plans)}, {context_name(plan.lookahead)}")
        state, decoded = streams.initial_state(session, plan), GreedyState.initial(parent.spec.decoding)
        for chunk in streams.chunks(plan):
            frames, lengths, state = session.encode(chunk.mel[None], np.array([chunk.length], np.int64), state)
            greedy(session, frames, lengths, [decoded])
    return Scan(session.seen["encoder"], session.seen["decoder"])


def one_of_each(plans: Iterable[StreamPlan]) -> Iterable[StreamPlan]:
    """The first stream of each lookahead that is all speech, and the first that is not."""
    seen = set()
    for plan in plans:
        kind = (plan.lookahead, all(s.kind == "speech" for s in plan.segments))
        if kind not in seen:
            seen.add(kind)
            yield plan


def unsafe_nodes(model, magnitudes: dict[str, float], limit: float) -> list[str]:
    """Names of the nodes that yield or read a tensor of magnitude above `limit`, in graph order."""
    large = {name for name, magnitude in magnitudes.items() if not magnitude <= limit}
    return [n.name for n in model.graph.node if large.intersection([*n.input, *n.output])]


class _Watching(ProbedSession):
    def __init__(self, artifact: Artifact, encoder: Probe, decoder: Probe):
        super().__init__(artifact, encoder, decoder)
        self.seen: dict[str, dict[str, float]] = {"encoder": {}, "decoder": {}}

    def encode(self, mel, lengths, state):
        result = super().encode(mel, lengths, state)
        self._note("encoder", self.encoder.values, result[0])
        return result

    def step(self, frames, tokens, state):
        result = super().step(frames, tokens, state)
        self._note("decoder", self.decoder.values, result[0])
        return result

    def _note(self, graph: str, maxima: dict[str, np.ndarray], output: np.ndarray) -> None:
        seen = self.seen[graph]
        for name, value in maxima.items():
            seen[name] = max(seen.get(name, 0.0), float(value))
        # The output too: a maximum may skip over NaN.
        if not (np.isfinite(output).all() and np.isfinite([*seen.values()]).all()):
            raise ArtifactError(
                f"The fp32 {graph} yields values that are not numbers.",
                expected="finite activations on calibration audio",
                found="NaN or infinity",
                todo="check the fp32 artifact against the oracle first",
            )
