"""What each part of the encoder costs when it alone is rounded: measured on warm streams, kept on disk, ranked.

A group is a module of a layer (its feed forward, attention or convolution). Its weights are replaced by the rounded
ones in the parent's graph, streams run through it with their caches carried, and the final encoder frames and the
greedy tokens are compared with the parent's on the same audio.

There are a hundred groups in a model of 24 layers, so all streams are heard in one batch, at the longest lookahead, as
long as the shortest of them lasts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.stream import CalibrationStreams, StreamPlan
from nemoport.decode import GreedyState, greedy
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, read_json, write_json
from nemoport.markdown import table
from nemoport.progress import Progress
from nemoport.stream import stacked

LAYER_MODULE = re.compile(r"/layers\.(\d+)/(\w+)/")


@dataclass(frozen=True)
class Cost:
    """noise: power of the error of the encoder's frames, relative to theirs; tokens: share that differs."""

    noise: float
    tokens: float

    @property
    def snr_db(self) -> float:
        return float(-10 * np.log10(max(self.noise, 1e-30)))


class SensitivityProbe:
    """The parent on some warm streams, to compare it with itself under other weights. plans: whose audio it hears."""

    def __init__(self, parent: Artifact, streams: CalibrationStreams, plans: Sequence[StreamPlan]):
        self._parent = parent
        self._prompts = [plan.prompt for plan in plans if plan.prompt is not None]
        alike = [replace(plan, lookahead=max(parent.spec.lookaheads)) for plan in plans]
        self._batches = [stacked(chunks) for chunks in zip(*map(streams.chunks, alike), strict=False)]
        self._frames, self._tokens = self._hear({})

    def cost(self, weights: Mapping[str, np.ndarray]) -> Cost:
        """Of the parent with `weights` (initializer -> f32) in place of its own."""
        from rapidfuzz.distance import Levenshtein

        frames, tokens = self._hear(weights)
        power = sum(float(np.square(f, dtype=np.float64).sum()) for f in self._frames)
        error = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(self._frames, frames, strict=True))
        wrong = sum(Levenshtein.distance(a, b) for a, b in zip(self._tokens, tokens, strict=True))
        return Cost(error / power, wrong / max(1, sum(map(len, self._tokens))))

    def _hear(self, weights: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], list[list[int]]]:
        from nemoport.runtimes.onnxruntime.session import OnnxSession

        session = OnnxSession(self._parent.spec, self._parent.encoder, self._parent.decoder, encoder_weights=weights)
        streams = len(self._batches[0][1])
        state = session.initial_state(streams, self._prompts)
        heard, decoded = [], [GreedyState.initial(session.spec.decoding) for _ in range(streams)]
        for mel, mel_lengths in self._batches:
            frames, lengths, state = session.encode(mel, mel_lengths, state)
            heard += [row[:length] for row, length in zip(frames, lengths, strict=True)]
            greedy(session, frames, lengths, decoded)
        return heard, [stream.tokens for stream in decoded]


def groups(matmuls: Sequence[str]) -> dict[str, list[str]]:
    """ "layer.module" -> its MatMul nodes, in graph order."""
    found: dict[str, list[str]] = {}
    for name in matmuls:
        match = LAYER_MODULE.search(name)
        if match is None:
            raise ArtifactError(
                "The encoder's layers cannot be told apart.",
                expected="MatMul nodes named /layers.N/module/...",
                found=name,
                todo="quantize an artifact of `nemoport export`",
            )
        found.setdefault(f"{match[1]}.{match[2]}", []).append(name)
    return found


def measure(
    listener: SensitivityProbe,
    inputs: dict,
    names: Sequence[str],
    changed: Callable[[str], Mapping[str, np.ndarray]],
    root: Path,
    progress: Progress,
) -> dict[str, Cost]:
    """group -> what it costs alone; kept in root/<digest of inputs>.json, group by group.

    inputs: what the figures depend on (parent, audio, recipe). changed: the weights that replace the parent's, of a group.
    Raises ArtifactError for a file that was measured with other inputs.
    """
    path = root / f"{digest_json(inputs)[:16]}.json"
    known: dict[str, Cost] = {}
    if path.is_file():
        known = read_costs(path, inputs)
    for number, group in enumerate(names, 1):
        if group not in known:
            known[group] = listener.cost(changed(group))
            write_json(path, {"inputs": inputs, "costs": {name: asdict(cost) for name, cost in known.items()}})
        progress(f"sensitivity: {number} of {len(names)}, {group}: {known[group].snr_db:.1f} dB")
    return {group: known[group] for group in names}


def read_costs(path: Path, inputs: dict) -> dict[str, Cost]:
    """Raises ArtifactError unless the file holds costs measured with these inputs."""
    raw = read_json(path, f"remove {path} and measure again")
    if raw.get("inputs") != inputs:
        differing = sorted(k for k in inputs if raw.get("inputs", {}).get(k) != inputs[k])
        raise ArtifactError(
            f"{path} holds the sensitivity of something else.",
            expected=f"the same {', '.join(inputs)}",
            found=f"another {', '.join(differing)}",
            todo=f"remove {path} and measure again",
        )
    return {name: Cost(**cost) for name, cost in raw["costs"].items()}


def heat_map(costs: Mapping[str, Cost]) -> str:
    """Markdown: layers down, modules across, dB of the encoder's frames where that group alone is rounded."""
    modules = list(dict.fromkeys(group.split(".")[1] for group in costs))
    layers = sorted({int(group.split(".")[0]) for group in costs})
    rows = [[str(k), *(f"{costs[f'{k}.{m}'].snr_db:.1f}" if f"{k}.{m}" in costs else "" for m in modules)] for k in layers]
    return table(["layer", *modules], rows, "---:")
