"""Overflow scan: finds the tensors of the fp32 graphs that would not fit into fp16, on warm streams of real speech.

The fp16 graph on a CPU does not overflow where others would, because onnxruntime's CPU provider has few half kernels,
folds the casts and computes in f32. So the magnitudes are measured in the fp32 graphs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.probe import Probe, ProbedSession
from nemoport.calibration.stream import CalibrationStreams, StreamPlan
from nemoport.errors import ArtifactError
from nemoport.heads import greedy_state
from nemoport.progress import Progress, Step
from nemoport.quantize.graph import float_tensors, load_structure

FP16_MAX = 65504.0


@dataclass(frozen=True)
class Scan:
    """The largest magnitude of each scanned tensor, by name."""

    encoder: dict[str, float]
    decoder: dict[str, float]


def scan_activations(
    parent: Artifact, streams: CalibrationStreams, ops: Iterable[str], progress: Progress, threads: int | None = None
) -> Scan:
    """Decodes one spoken and one fading stream at each lookahead, cold starts included, and returns the largest magnitudes
    of the tensors that nodes with the operators `ops` read and compute.

    Maxima are found inside the graphs, so memory is that of a plain run. threads: as of `Probe`. Raises ArtifactError if a
    value is not finite.
    """
    names = [float_tensors(load_structure(path), ops) for path in (parent.encoder, parent.decoder)]
    encoder = Probe(parent.encoder, names[0], max_abs=True, threads=threads)
    decoder = Probe(parent.decoder, names[1], max_abs=True, threads=threads)
    session = _ScanningSession(parent, encoder, decoder)
    plans = list(one_of_each(streams.plans))
    for i, plan in enumerate(plans):
        progress(Step("fp16: overflow scan", i, len(plans), "streams"))
        state, decoded = streams.initial_state(session, plan), greedy_state(parent.spec)
        for chunk in streams.chunks(plan):
            frames, lengths, state = session.encode(chunk.mel[None], np.array([chunk.length], np.int64), state)
            decoded.decode(session, frames, lengths, [decoded])
    progress(Step("fp16: overflow scan", len(plans), len(plans), "streams"))
    return Scan(session.maxima["encoder"], session.maxima["decoder"])


def one_of_each(plans: Iterable[StreamPlan]) -> Iterable[StreamPlan]:
    """Yields the first stream of each lookahead that is all speech, and the first that is not."""
    found = set()
    for plan in plans:
        kind = (plan.lookahead, all(s.kind == "speech" for s in plan.segments))
        if kind not in found:
            found.add(kind)
            yield plan


def unsafe_nodes(model, magnitudes: dict[str, float], limit: float) -> list[str]:
    """Names of the nodes that compute or read a tensor of magnitude above `limit`, in graph order."""
    large = {name for name, magnitude in magnitudes.items() if not magnitude <= limit}
    return [n.name for n in model.graph.node if large.intersection([*n.input, *n.output])]


class _ScanningSession(ProbedSession):
    """A probed session that keeps the largest magnitudes over all its calls: graph -> tensor -> magnitude."""

    def __init__(self, artifact: Artifact, encoder: Probe, decoder: Probe):
        super().__init__(artifact, encoder, decoder)
        self.maxima: dict[str, dict[str, float]] = {"encoder": {}, "decoder": {}}
        self._probes = {"encoder": encoder, "decoder": decoder}

    def encode(self, mel, lengths, state):
        result = super().encode(mel, lengths, state)
        self._update("encoder", result[0])
        return result

    def step(self, frames, tokens, state):
        result = super().step(frames, tokens, state)
        self._update("decoder", result[0])
        return result

    def _update(self, graph: str, output: np.ndarray) -> None:
        maxima = self.maxima[graph]
        for name, value in self._probes[graph].values.items():
            maxima[name] = float(np.maximum(maxima.get(name, 0.0), value))  # NaN stays
        # The output too: a maximum of the graph's may skip over NaN.
        if not (np.isfinite(output).all() and np.isfinite([*maxima.values()]).all()):
            raise ArtifactError(
                f"The fp32 {graph} computes values that are not numbers.",
                expected="finite activations on calibration audio",
                found="NaN or infinity",
                todo="check the fp32 artifact against the oracle first",
            )
