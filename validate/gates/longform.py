"""Gate `longform`: one stream of many minutes, compared minute by minute with NeMo's own run of the same recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nemoport.score import count_all, units, wer_percent, without_special
from nemoport.spec import Lookahead, context_name
from nemoport.speech.longform import LongForm
from nemoport.tokens import detokenize
from nemoport.validate.context import Context
from nemoport.validate.details import Drift
from nemoport.validate.gate_result import GateResult
from nemoport.validate.oracle import Record, sample_positions

MINUTE_WORDS = 50  # a minute of fewer is judged with its neighbour: of six words, two are 33 points
SPOKEN_WORDS = 2  # a segment for which NeMo returns as many or more and the artifact none is a stall


@dataclass(frozen=True)
class Minute:
    """Scores of the utterances that begin in one minute, or in it and in those behind it.

    wer, nemo: word error rates of the artifact and of NeMo, in percent.
    """

    number: int
    words: int
    wer: float
    nemo: float

    @property
    def above(self) -> float:
        return self.wer - self.nemo


@dataclass(frozen=True)
class SegmentScores:
    """The artifact's and NeMo's transcripts of each segment of the recording, and their scores."""

    form: LongForm
    tokens: Sequence[tuple[int, ...]]
    nemo_tokens: Sequence[tuple[int, ...]]
    texts: Sequence[str]
    nemo_texts: Sequence[str]
    drift: Sequence[Drift] = ()

    @cached_property
    def spoken(self) -> list[int]:
        """Indices of the segments with speech."""
        return [i for i, segment in enumerate(self.form.segments) if segment.text]

    @cached_property
    def minutes(self) -> list[Minute]:
        return [Minute(number, *self._score(segments)) for number, segments in self._by_minute.items()]

    @cached_property
    def _by_minute(self) -> dict[int, list[int]]:
        """The spoken segments by the minute in which they begin."""
        found: dict[int, list[int]] = {}
        for i in self.spoken:
            found.setdefault(int(self.form.segments[i].start_s // 60), []).append(i)
        return found

    @property
    def whole(self) -> Minute:
        """Scores of the whole recording, as if it were one minute."""
        return Minute(0, *self._score(self.spoken))

    @property
    def worst(self) -> Minute:
        """The minute that is furthest above NeMo, among stretches of at least MINUTE_WORDS words."""
        stretches: dict[int, list[int]] = {}
        number, gathered = 0, []
        for minute, segments in self._by_minute.items():
            number, gathered = (number, gathered + segments) if gathered else (minute, segments)
            if self._words(gathered) >= MINUTE_WORDS:
                stretches[number], gathered = gathered, []
        if gathered:  # the last few words belong to the minute before, if there is one
            number = max(stretches, default=number)
            stretches[number] = stretches.get(number, []) + gathered
        return max((Minute(n, *self._score(s)) for n, s in stretches.items()), key=lambda minute: minute.above)

    @property
    def stalls(self) -> list[int]:
        """Indices of the segments for which the artifact returns no word and NeMo at least SPOKEN_WORDS."""
        return [i for i in self.spoken if not self.texts[i] and len(self.nemo_texts[i].split()) >= SPOKEN_WORDS]

    @property
    def in_silence(self) -> int:
        """How many tokens more than NeMo the artifact emits in segments without speech."""
        silent = set(range(len(self.form.segments))) - set(self.spoken)
        return sum(max(0, len(self.tokens[i]) - len(self.nemo_tokens[i])) for i in silent)

    @property
    def exact(self) -> float:
        """Share of segments with NeMo's tokens."""
        return sum(own == nemo for own, nemo in zip(self.tokens, self.nemo_tokens, strict=True)) / len(self.tokens)

    def _words(self, segments: list[int]) -> int:
        return sum(len(units(self.form.segments[i].text, self.form.segments[i].language).split()) for i in segments)

    def _score(self, segments: list[int]) -> tuple[int, float, float]:
        """(words of the transcript, WER of the artifact, WER of NeMo) over some segments."""
        references, languages = ([getattr(self.form.segments[i], name) for i in segments] for name in ("text", "language"))
        hypotheses = ([text[i] for i in segments] for text in (self.texts, self.nemo_texts))
        own, nemo = (count_all(references, texts, languages) for texts in hypotheses)
        return sum(c.words for c in own), wer_percent(own), wer_percent(nemo)


def transcribe_segments(context: Context, lookahead: Lookahead) -> SegmentScores:
    """Runs the artifact and NeMo over the long recordings, at one lookahead."""
    runner = context.runner  # first: an artifact that does not load is found before NeMo runs for minutes
    tokens: list[tuple[int, ...]] = []  # of each segment
    nemo_tokens: list[tuple[int, ...]] = []
    drift: list[Drift] = []
    begin_s = 0.0  # of a recording, as `LongForm.joined` has it
    recordings = context.longform(lookahead)
    for form, reference in recordings:
        run = runner.run(form.corpus, lookahead, 1)[context.reference_rule][0]
        drift += drift_of(run, reference, lookahead, context.spec.frame_seconds, begin_s)
        begin_s += 60.0 * math.ceil(form.corpus.seconds / 60)
        tokens += form.split(run.tokens, run.token_frames, context.spec.frame_seconds)
        nemo_tokens += form.split(reference.tokens, reference.token_frames, context.spec.frame_seconds)
    texts, nemo_texts = ([without_special(detokenize(runner.pieces, one)) for one in part] for part in (tokens, nemo_tokens))
    return SegmentScores(LongForm.joined([form for form, _ in recordings]), tokens, nemo_tokens, texts, nemo_texts, drift)


def drift_of(run: Record, reference: Record, lookahead: Lookahead, frame_s: float, begin_s: float) -> list[Drift]:
    """Compares the encoder frames that are kept of two runs, one by one; none where the runs have not as many frames.

    frame_s: seconds of an encoder frame; begin_s: when the recording begins.
    """
    if run.enc_frames != reference.enc_frames:
        return []
    positions = sample_positions(run.enc_frames, lookahead)
    error = np.linalg.norm(run.sampled_frames.astype(np.float64) - reference.sampled_frames, axis=1)
    power = np.linalg.norm(reference.sampled_frames.astype(np.float64), axis=1)
    return [
        {"seconds": begin_s + float(at) * frame_s, "ratio": float(e / p)}
        for at, e, p in zip(positions, error, power, strict=True)
        if p and np.isfinite(e)
    ]


def _by_time(scores: SegmentScores, lookahead: Lookahead) -> dict[str, Any]:
    """Returns `StreamByTime` of details.py."""
    minutes = [{"number": m.number, "words": m.words, "wer": m.wer, "nemo": m.nemo} for m in scores.minutes if m.words]
    return {"lookahead": lookahead, "minutes": minutes, "drift": list(scores.drift)}


def run(context: Context) -> list[GateResult]:
    results: list[GateResult] = []
    for lookahead in context.long_lookaheads:
        scores = transcribe_segments(context, lookahead)
        context.details.setdefault("longform", _by_time(scores, lookahead))
        results += _judged(context, scores, lookahead, f"{context_name(lookahead)}: " if results else "")
    return results


def _judged(context: Context, scores: SegmentScores, lookahead: Lookahead, prefix: str) -> list[GateResult]:
    """prefix: of the cases."""
    whole, worst, n = scores.whole, scores.worst, len(scores.spoken)
    recordings = scores.form.corpus.utterances
    where = f"{context_name(lookahead)}, {scores.form.corpus.seconds / 60:.1f} min, one stream"
    where += f", in {len(recordings)} passes" if len(recordings) > 1 else ""
    late = f"minute {worst.number}, {worst.words} words: {worst.wer:.1f} %, NeMo {worst.nemo:.1f} %"
    segments = scores.form.segments
    stalled = "; ".join(f"at {segments[i].start_s:.0f} s: {segments[i].text}" for i in scores.stalls[:3])
    points = "WER points"

    def judge(
        case: str, measured: float, limit: str | None, unit: str, evidence: str = where, *, at_least: bool = False
    ) -> GateResult:
        return context.judge(
            "longform", prefix + case, measured, limit=limit, unit=unit, n=n, at_least=at_least, evidence=evidence
        )

    return [
        judge("WER", whole.wer, None, "%"),
        judge("NeMo's WER", whole.nemo, None, "%"),
        judge("difference", whole.above, "max_difference_points", points),
        judge("worst minute above NeMo", worst.above, "max_worst_minute_points", points, late),
        judge("stalls", len(scores.stalls), "max_stalls", "utterances without a word", stalled),
        judge("tokens in silence", scores.in_silence, "max_in_silence", "tokens more than NeMo's"),
        judge("segments", scores.exact, "min_exact_share", "share of segments with NeMo's tokens", at_least=True),
    ]
