"""Sensitivity: what each part of the encoder costs when it alone is rounded, measured on warm streams and kept on disk.

A group is a module of a layer (its feed forward, attention or convolution). Its weights are replaced by the rounded
ones in the parent's graph, streams run through it with their caches carried, and the final encoder frames and the
greedy tokens are compared with the parent's on the same audio.

There are a hundred groups in a model of 24 layers, so all streams are run in one batch, at the longest lookahead, as long
as the shortest of them lasts; to measure groups alone, their first frames, and many groups at once (row_probe.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.probe import Probe, ProbedSession, threads_for
from nemoport.calibration.stream import CalibrationStreams, StreamPlan
from nemoport.chunker import stacked
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, read_json, write_json
from nemoport.heads import greedy_state
from nemoport.markdown import table
from nemoport.progress import Progress, Step
from nemoport.quantize.row_probe import Changes, RowProbe, batch_axes
from nemoport.runtimes.onnxruntime.session import OnnxSession

TOGETHER = 8  # groups that are measured in one batch: two layers of the published model, whose streams' caches take 0.7 GB
LAYER_MODULE = re.compile(r"/layers\.(\d+)/(\w+)/")


@dataclass(frozen=True)
class Cost:
    """The difference from the parent. noise: power of the error of the encoder's frames, relative to their own power;
    tokens: edit distance of the greedy tokens, relative to their number."""

    noise: float
    tokens: float

    @property
    def snr_db(self) -> float:
        """The noise as a signal-to-noise ratio."""
        return float(-10 * np.log10(max(self.noise, 1e-30)))


class SensitivityProbe:
    """Runs the parent on some warm streams, with its own weights and with others, and compares. plans: the streams."""

    def __init__(self, parent: Artifact, streams: CalibrationStreams, plans: Sequence[StreamPlan]):
        self._parent, self._axes = parent, dict[str, int | None]()
        self._prompts = [plan.prompt for plan in plans if plan.prompt is not None]
        longest = max(parent.spec.streaming.lookaheads) if parent.spec.streaming else None
        alike = [replace(plan, lookahead=longest) for plan in plans]
        self._batches = [stacked(chunks) for chunks in zip(*map(streams.chunks, alike), strict=False)]

    @cached_property
    def _own(self) -> tuple[list[np.ndarray], list[list[int]]]:
        return self._run({})

    def cost(self, weights: Mapping[str, np.ndarray]) -> Cost:
        """The cost of the parent with `weights` (initializer -> f32) in place of its own."""
        return _cost(self._own, self._run(weights))

    def costs(self, groups: Sequence[Changes], frames: int) -> list[Cost]:
        """The cost of each group of changes alone, on chunks of the first `frames` encoder frames, all in one batch."""
        parent, streams = self._parent, len(self._batches[0][1])
        unknown = [name for changes in groups for name in changes if name not in self._axes]
        if unknown:
            mel, lengths = self._batches[0]
            self._axes |= batch_axes(parent, unknown, mel[:1], lengths[:1], self._prompts[:1])
        threads = threads_for(parent.encoder)
        session = ProbedSession(parent, RowProbe(parent, groups, streams, self._axes), Probe(parent.decoder, [], threads=threads))
        made, tokens = self._through(session, 1 + len(groups), frames)
        rows = [slice(first, first + streams) for first in range(0, len(tokens), streams)]
        own, *changed = [(made[one], tokens[one]) for one in rows]
        return [_cost(own, one) for one in changed]

    def _run(self, weights: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], list[list[int]]]:
        parent, threads = self._parent, threads_for(self._parent.encoder)
        session = OnnxSession(parent.spec, parent.encoder, parent.decoder, threads=threads, encoder_weights=weights)
        return self._through(session, 1)

    def _through(self, session: OnnxSession, copies: int, enough: float = np.inf) -> tuple[list[np.ndarray], list[list[int]]]:
        """Valid encoder frames f32 [frames, d_model] and tokens of each stream, `copies` times one behind another.

        enough: encoder frames of the first stream behind which no further chunk is run."""
        streams = copies * len(self._batches[0][1])
        state = session.initial_state(streams, self._prompts * copies)
        valid: list[list[np.ndarray]] = [[] for _ in range(streams)]
        decoded = [greedy_state(session.spec) for _ in range(streams)]
        for mel, mel_lengths in self._batches:
            if sum(map(len, valid[0])) >= enough:
                break
            frames, lengths, state = session.encode(np.tile(mel, (copies, 1, 1)), np.tile(mel_lengths, copies), state)
            for made, row, length in zip(valid, frames, lengths, strict=True):
                made.append(row[:length])
            decoded[0].decode(session, frames, lengths, decoded)
        return [np.concatenate(made) for made in valid], [stream.tokens for stream in decoded]


def _cost(own: tuple[list[np.ndarray], list[list[int]]], other: tuple[list[np.ndarray], list[list[int]]]) -> Cost:
    """The cost of the frames and tokens of streams, beside those of the parent on the same streams."""
    from rapidfuzz.distance import Levenshtein

    power = sum(float(np.square(f, dtype=np.float64).sum()) for f in own[0])
    error = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(own[0], other[0], strict=True))
    wrong = sum(Levenshtein.distance(a, b) for a, b in zip(own[1], other[1], strict=True))
    return Cost(error / power, wrong / max(1, sum(map(len, own[1]))))


def groups(matmuls: Sequence[str]) -> dict[str, list[str]]:
    """Groups MatMul nodes by their names: "layer.module" -> its nodes, in graph order. Raises ArtifactError for a name of
    another form."""
    found: dict[str, list[str]] = {}
    for name in matmuls:
        match = LAYER_MODULE.search(name)
        if match is None:
            raise ArtifactError(
                "The encoder's layers cannot be distinguished.",
                expected="MatMul nodes named /layers.N/module/...",
                found=name,
                todo="quantize an artifact of `nemoport export`",
            )
        found.setdefault(f"{match[1]}.{match[2]}", []).append(name)
    return found


def measure(
    probe: SensitivityProbe,
    inputs: dict,
    names: Sequence[str],
    changed: Callable[[str], Changes],
    frames: int,
    root: Path,
    progress: Progress,
) -> dict[str, Cost]:
    """Measures what each group of `names` costs alone: group -> cost; kept in root/<digest of inputs>.json, TOGETHER by TOGETHER.

    inputs: everything that the figures depend on (parent, audio, recipe). changed: group -> what is added to the parent's
    weights. frames: as of `SensitivityProbe.costs`. Raises ArtifactError for a file that was measured with other inputs.
    """
    path = root / f"{digest_json(inputs)[:16]}.json"
    known: dict[str, Cost] = {}
    if path.is_file():
        known = read_costs(path, inputs)
    left = [group for group in names if group not in known]
    for at in range(0, len(left), TOGETHER):
        progress(Step("sensitivity", len(known), len(names), "groups"))
        group = left[at : at + TOGETHER]
        known |= zip(group, probe.costs([changed(name) for name in group], frames), strict=True)
        write_json(path, {"inputs": inputs, "costs": {name: asdict(cost) for name, cost in known.items()}})
    progress(Step("sensitivity", len(names), len(names), "groups"))
    return {group: known[group] for group in names}


def read_costs(path: Path, inputs: dict) -> dict[str, Cost]:
    """Reads the costs of groups. Raises ArtifactError unless they were measured with these inputs."""
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
    """A Markdown table, a row a layer and a column a module: dB of the encoder's frames if that group alone is rounded."""
    modules = list(dict.fromkeys(group.split(".")[1] for group in costs))
    layers = sorted({int(group.split(".")[0]) for group in costs})
    rows = [[str(k), *(f"{costs[f'{k}.{m}'].snr_db:.1f}" if f"{k}.{m}" in costs else "" for m in modules)] for k in layers]
    return table(["layer", *modules], rows, "---:")
