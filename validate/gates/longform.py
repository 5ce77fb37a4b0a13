"""Longform: one stream of many minutes, minute by minute, beside NeMo's own streaming of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nemoport.spec import context_name
from nemoport.speech.longform import LongForm
from nemoport.tokens import detokenize, split_tags
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.score import count_all, units, wer_percent

MINUTE_WORDS = 50  # with fewer a minute is judged with its neighbour: of six words, two are 33 points
SPOKEN_WORDS = 2  # a segment in which NeMo hears as many and an artifact none is a stall


@dataclass(frozen=True)
class Minute:
    """Of the utterances that begin in it, or in it and those behind it. wer, nemo: percent."""

    number: int
    words: int
    wer: float
    nemo: float

    @property
    def above(self) -> float:
        return self.wer - self.nemo


@dataclass(frozen=True)
class SegmentScores:
    """What an artifact and NeMo said in each segment of the recording: tokens, and text."""

    form: LongForm
    ours: Sequence[tuple[int, ...]]
    theirs: Sequence[tuple[int, ...]]
    our_text: Sequence[str]
    their_text: Sequence[str]

    @cached_property
    def spoken(self) -> list[int]:
        return [i for i, segment in enumerate(self.form.segments) if segment.text]

    @cached_property
    def minutes(self) -> list[Minute]:
        return [Minute(number, *self._score(segments)) for number, segments in self._by_minute.items()]

    @cached_property
    def _by_minute(self) -> dict[int, list[int]]:
        """Minute -> the spoken segments that begin in it."""
        found: dict[int, list[int]] = {}
        for i in self.spoken:
            found.setdefault(int(self.form.segments[i].start_s // 60), []).append(i)
        return found

    @property
    def whole(self) -> Minute:
        """All of it, as if it were one."""
        return Minute(0, *self._score(self.spoken))

    @property
    def worst(self) -> Minute:
        """Of those with words enough to tell."""
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
        return [i for i in self.spoken if not self.our_text[i] and len(self.their_text[i].split()) >= SPOKEN_WORDS]

    @property
    def in_silence(self) -> int:
        """Tokens more than NeMo's where nothing is said."""
        silent = set(range(len(self.form.segments))) - set(self.spoken)
        return sum(max(0, len(self.ours[i]) - len(self.theirs[i])) for i in silent)

    @property
    def exact(self) -> float:
        return sum(o == t for o, t in zip(self.ours, self.theirs, strict=True)) / len(self.ours)

    def _words(self, segments: list[int]) -> int:
        return sum(len(units(self.form.segments[i].text, self.form.segments[i].language).split()) for i in segments)

    def _score(self, segments: list[int]) -> tuple[int, float, float]:
        said, languages = ([getattr(self.form.segments[i], name) for i in segments] for name in ("text", "language"))
        heard = ([text[i] for i in segments] for text in (self.our_text, self.their_text))
        ours, theirs = (count_all(said, texts, languages) for texts in heard)
        return sum(c.words for c in ours), wer_percent(ours), wer_percent(theirs)


def transcribe_segments(context: Context) -> SegmentScores:
    """At the lookahead that is the checkpoint's first."""
    lookahead = context.lookaheads[0]
    runner = context.runner  # first: an artifact that does not load is found before NeMo listens for minutes
    said: tuple[list, list] = ([], [])  # by us, by NeMo: tokens of each segment
    recordings = context.longform(lookahead)
    for form, record in recordings:
        heard = runner.run(form.corpus, lookahead, 1)[context.last_rule][0]
        for whole, one in zip(said, (heard, record), strict=True):
            whole += form.split(one.tokens, one.token_frames, context.spec.frame_seconds)
    texts = ([split_tags(detokenize(runner.pieces, tokens))[0] for tokens in part] for part in said)
    return SegmentScores(LongForm.joined([form for form, _ in recordings]), *said, *texts)


def run(context: Context) -> list[GateResult]:
    scores = transcribe_segments(context)
    whole, worst, n = scores.whole, scores.worst, len(scores.spoken)
    recordings = scores.form.corpus.utterances
    where = f"{context_name(context.lookaheads[0])}, {scores.form.corpus.seconds / 60:.1f} min, one stream"
    where += f", in {len(recordings)} passes" if len(recordings) > 1 else ""
    late = f"minute {worst.number}, {worst.words} words: {worst.wer:.1f} %, NeMo {worst.nemo:.1f} %"
    segments = scores.form.segments
    stalled = "; ".join(f"at {segments[i].start_s:.0f} s: {segments[i].text}" for i in scores.stalls[:3])
    points = "WER points"

    def judge(case: str, measured: float, limit: str | None, unit: str, evidence: str = where, **more) -> GateResult:
        return context.judge("longform", case, measured, limit=limit, unit=unit, n=n, evidence=evidence, **more)

    return [
        judge("WER", whole.wer, None, "%"),
        judge("NeMo's WER", whole.nemo, None, "%"),
        judge("difference", whole.above, "max_difference_points", points),
        judge("worst minute above NeMo", worst.above, "max_worst_minute_points", points, late),
        judge("stalls", len(scores.stalls), "max_stalls", "utterances without a word", stalled),
        judge("tokens in silence", scores.in_silence, "max_in_silence", "tokens more than NeMo's"),
        judge("segments", scores.exact, "min_exact_share", "share of segments with NeMo's tokens", at_least=True),
    ]
