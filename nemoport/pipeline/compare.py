"""Two models side by side on the same recordings: sizes, interfaces, frames, tokens, word errors, speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nemoport.errors import UsageError
from nemoport.interface import Interface
from nemoport.pipeline.side import Side
from nemoport.progress import Progress, Step
from nemoport.score import Interval, WordCounts, count_words, wer_difference, wer_percent
from nemoport.spec import Lookahead, context_name
from nemoport.speech.corpus import Corpus, Utterance, prompts
from nemoport.stream import Stream, advance
from nemoport.tokens import detokenize


@dataclass(frozen=True)
class Ran:
    """One side's run of one recording. frames: f32 [T, d_model]; seconds: of processor time."""

    tokens: list[int]
    text: str
    frames: np.ndarray
    seconds: float


@dataclass
class Comparison:
    """What two sides have in common and what not. runs: of each recording, A's and B's; counts: their word errors, where both
    have a vocabulary."""

    a: Side
    b: Side
    lookaheads: tuple[Lookahead, Lookahead]
    seconds: float
    runs: list[tuple[Ran, Ran]] = field(default_factory=list)
    counts: list[tuple[WordCounts, WordCounts]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures in JSON's types; null where there is nothing to compare."""
        frames, difference, wers = self.frames(), self.difference(), self.wers()
        same_tokens = self.same_tokens()
        return {
            "a": _side_dict(self.a, self.lookaheads[0]),
            "b": _side_dict(self.b, self.lookaheads[1]),
            "recordings": len(self.runs),
            "audio_seconds": self.seconds,
            "bytes_ratio": sum(self.b.files.values()) / sum(self.a.files.values()),
            "interface": self.interface(),
            "frames": {"compared": frames[0], "decibels": frames[1], "largest": frames[2]},
            "tokens": None if same_tokens is None else {"same": same_tokens},
            "texts": {"same": sum(a.text == b.text for a, b in self.runs)} if self.counts else None,
            "wer_percent": wers,
            "wer_difference_points": difference and [difference.value, difference.lower, difference.upper],
            "speed": {"a": self.speed(0), "b": self.speed(1), "b_over_a": self.ratio()},
        }

    def interface(self) -> list[str]:
        """Returns what the encoders' inputs and outputs do not share, a line for each tensor."""
        encoders = [next(iter(side.interfaces.values()), Interface({}, {})) for side in (self.a, self.b)]
        tensors = [{**one.inputs, **one.outputs} for one in encoders]
        lines = [f"{name}: {tensors[0][name]}, only A" for name in tensors[0].keys() - tensors[1].keys()]
        lines += [f"{name}: {tensors[1][name]}, only B" for name in tensors[1].keys() - tensors[0].keys()]
        both = tensors[0].keys() & tensors[1].keys()
        lines += [f"{name}: A {tensors[0][name]}, B {tensors[1][name]}" for name in both if tensors[0][name] != tensors[1][name]]
        return sorted(lines)

    def frames(self) -> tuple[int, float | None, float | None]:
        """Returns in how many recordings both gave as many frames of one width, and over these the signal-to-noise ratio of B's
        to A's in dB, and the largest difference. Equal frames have no ratio."""
        pairs = [
            (a.frames.astype(np.float64), b.frames) for a, b in self.runs if a.frames.shape == b.frames.shape and a.frames.size
        ]
        if not pairs:
            return 0, None, None
        noise = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
        signal = sum(float((a**2).sum()) for a, _ in pairs)
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        return len(pairs), 10 * float(np.log10(signal / noise)) if noise and signal else None, largest

    def same_tokens(self) -> int | None:
        """Returns in how many recordings the tokens are the same; None for other vocabularies."""
        if list(self.a.pieces) != list(self.b.pieces) or self.a.session.spec.decoding.vocab_size != len(self.a.pieces):
            return None
        return sum(a.tokens == b.tokens for a, b in self.runs)

    def wers(self) -> list[float] | None:
        return [wer_percent([pair[side] for pair in self.counts]) for side in (0, 1)] if self._scored else None

    def difference(self) -> Interval | None:
        """Returns the WER points of B above A, paired over recordings."""
        return wer_difference([[b] for _, b in self.counts], [[a] for a, _ in self.counts]) if self._scored else None

    @property
    def _scored(self) -> bool:
        return any(a.words for a, _ in self.counts)

    def speed(self, side: int) -> float:
        """Returns times real time, of processor time on one thread."""
        return self.seconds / sum(pair[side].seconds for pair in self.runs)

    def ratio(self) -> float:
        """Returns how many times as fast as A B is: the median over recordings, each of which ran on both sides in turn."""
        return float(np.median([a.seconds / b.seconds for a, b in self.runs]))


def compare(
    a: Side, b: Side, corpus: Corpus, lookahead: int | None = None, progress: Progress = lambda event: None
) -> Comparison:
    """Runs both sides on each recording, one behind the other, in turns first.

    lookahead: of both, in encoder frames; by default the largest that both have, and of a side without any the whole recording.
    Raises UsageError for a lookahead that a side does not serve and for other sample rates; CorpusError as `prompts`.
    """
    if a.session.spec.frontend.sample_rate_hz != b.session.spec.frontend.sample_rate_hz:
        rates = [str(side.session.spec.frontend.sample_rate_hz) for side in (a, b)]
        todo = "compare models of one rate"
        raise UsageError("The sides take other audio.", expected="one sample rate", found=" and ".join(rates), todo=todo)
    chosen = _lookaheads(a, b, lookahead)
    slots = [prompts(corpus, side.session.spec) for side in (a, b)]
    found = Comparison(a, b, chosen, sum(utterance.seconds for utterance in corpus.utterances))
    for side, one, prompt in zip((a, b), chosen, slots, strict=True):  # the first run of a graph takes longer
        _run(side, corpus.utterances[0], one, prompt[0])
    for index, utterance in enumerate(corpus.utterances):
        progress(Step("comparing", index, len(corpus.utterances), "recordings"))
        order = (0, 1) if index % 2 == 0 else (1, 0)
        ran = {place: _run((a, b)[place], utterance, chosen[place], slots[place][index]) for place in order}
        found.runs.append((ran[0], ran[1]))
        if a.pieces and b.pieces:
            counts = [count_words(utterance.text, ran[place].text, utterance.language) for place in (0, 1)]
            found.counts.append((counts[0], counts[1]))
    progress(Step("comparing", len(corpus.utterances), len(corpus.utterances), "recordings"))
    return found


def _lookaheads(a: Side, b: Side, wanted: int | None) -> tuple[Lookahead, Lookahead]:
    served = [[one for one in side.lookaheads if isinstance(one, int)] for side in (a, b)]
    shared = set(served[0]) & set(served[1])
    if wanted is not None and any(own and wanted not in own for own in served):
        names = "; ".join(", ".join(map(str, own)) for own in served)
        todo = "choose another, or leave --lookahead out"
        raise UsageError("A side does not serve this lookahead.", expected=names, found=str(wanted), todo=todo)
    best = wanted if wanted is not None else max(shared, default=None)
    first, second = ((best if best is not None else max(own)) if own else None for own in served)
    return first, second


def _run(side: Side, utterance: Utterance, lookahead: Lookahead, prompt: int | None) -> Ran:
    samples, frames = utterance.samples(), []
    begun = time.process_time()
    stream = Stream(side.session, side.filterbank, lookahead, prompt=prompt)
    stream.push(samples)
    stream.close()
    while stream.chunks:
        frames += advance(side.session, [stream])
    seconds = time.process_time() - begun
    text = detokenize(side.pieces, stream.tokens) if side.pieces else ""
    width = side.session.spec.encoder.d_model
    return Ran(list(stream.tokens), text, np.concatenate(frames or [np.zeros((0, width), np.float32)]), max(seconds, 1e-9))


def _side_dict(side: Side, lookahead: Lookahead) -> dict[str, Any]:
    spec = side.session.spec
    return {
        "name": side.name,
        "kind": spec.kind,
        "context": context_name(lookahead),
        "bytes": sum(side.files.values()),
        "files": dict(side.files),
        "graphs": {
            name: {
                "inputs": {k: str(v) for k, v in one.inputs.items()},
                "outputs": {k: str(v) for k, v in one.outputs.items()},
            }
            for name, one in side.interfaces.items()
        },
    }


def rows(found: Comparison) -> list[tuple[str, ...]]:
    """Returns the rows of a table: what, A, B, and how they differ."""
    raw = found.to_dict()
    a, b = raw["a"], raw["b"]
    frames, wer, points = raw["frames"], raw["wer_percent"], raw["wer_difference_points"]
    n = f"of {raw['recordings']}"
    decibels = "equal" if frames["largest"] == 0 else f"{frames['decibels']:.1f} dB" if frames["decibels"] is not None else "-"
    return [
        ("", "A", "B", "B beside A"),
        ("kind", a["kind"], b["kind"], ""),
        ("context", a["context"], b["context"], ""),
        ("files", str(len(a["files"])), str(len(b["files"])), ""),
        ("MB", f"{a['bytes'] / 1e6:.1f}", f"{b['bytes'] / 1e6:.1f}", f"{raw['bytes_ratio']:.2f} times"),
        (
            "frames",
            "",
            "",
            f"{decibels}, in {frames['compared']} {n} recordings" if frames["compared"] else "other counts or widths",
        ),
        ("same tokens", "", "", f"{raw['tokens']['same']} {n}" if raw["tokens"] else "other vocabularies"),
        ("same texts", "", "", f"{raw['texts']['same']} {n}" if raw["texts"] else "no vocabulary"),
        ("WER %", *(f"{one:.2f}" for one in wer or ()), f"{points[0]:+.2f} ({points[1]:+.2f} to {points[2]:+.2f})")
        if wer and points
        else ("WER %", "-", "-", "no transcripts, or no vocabulary"),
        ("times real time", *(f"{raw['speed'][one]:.1f}" for one in "ab"), f"{raw['speed']['b_over_a']:.2f} times as fast"),
    ]


def lines_of(found: Comparison, table: Sequence[str]) -> list[str]:
    """Returns the lines for a terminal. table: the lines of `rows`."""
    return [f"A: {found.a.name}", f"B: {found.b.name}", "", *table, "", *(f"interface: {line}" for line in found.interface())]
