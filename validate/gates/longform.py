"""Longform: one stream of many minutes, minute by minute, beside NeMo's own streaming of the same."""

from __future__ import annotations

from nemoport.spec import context_name
from nemoport.tokens import detokenize
from nemoport.validate.context import Context
from nemoport.validate.result import GateResult
from nemoport.validate.score import WordCounts, count_all, wer_percent

SPOKEN_WORDS = 2  # a segment in which NeMo hears as many and an artifact none is a stall


def run(context: Context) -> list[GateResult]:
    lookahead = context.spec.lookaheads[0]
    runner = context.runner  # first: an artifact that does not load is found before NeMo listens for minutes
    form, record = context.longform(lookahead)
    heard = runner.run(form.corpus, lookahead, 1)[context.last_rule][0]
    frame_s = context.spec.frame_seconds
    ours = form.split(heard.tokens, heard.token_frames, frame_s)
    theirs = form.split(record.tokens, record.token_frames, frame_s)
    spoken = [i for i, segment in enumerate(form.segments) if segment.text]
    texts = [form.segments[i].text for i in spoken]
    our_text, their_text = ([detokenize(runner.pieces, part[i]) for i in spoken] for part in (ours, theirs))
    mine, nemo = count_all(texts, our_text), count_all(texts, their_text)
    minutes = [int(form.segments[i].start_s // 60) for i in spoken]
    by_minute = [(m, *(_of_minute(counts, minutes, m) for counts in (mine, nemo))) for m in sorted(set(minutes))]
    worst = max(by_minute, key=lambda row: row[1] - row[2])
    stalls = [i for i, o, t in zip(spoken, our_text, their_text, strict=True) if not o and len(t.split()) >= SPOKEN_WORDS]
    silent = [i for i, segment in enumerate(form.segments) if not segment.text]
    in_silence = sum(max(0, len(ours[i]) - len(theirs[i])) for i in silent)
    exact = sum(o == t for o, t in zip(ours, theirs, strict=True)) / len(ours)
    n = len(spoken)
    where = f"{context_name(lookahead)}, {form.corpus.seconds / 60:.1f} min, one stream"
    late = f"minute {worst[0]}: {worst[1]:.1f} %, NeMo {worst[2]:.1f} %"
    stalled = "; ".join(f"at {form.segments[i].start_s:.0f} s: {form.segments[i].text}" for i in stalls[:3])
    points, difference = "WER points", wer_percent(mine) - wer_percent(nemo)

    def judge(case: str, measured: float, limit: str | None, unit: str, evidence: str = where, **more) -> GateResult:
        return context.judge("longform", case, measured, limit=limit, unit=unit, n=n, evidence=evidence, **more)

    return [
        judge("WER", wer_percent(mine), None, "%"),
        judge("NeMo's WER", wer_percent(nemo), None, "%"),
        judge("difference", difference, "max_difference_points", points),
        judge("worst minute above NeMo", worst[1] - worst[2], "max_worst_minute_points", points, late),
        judge("stalls", len(stalls), "max_stalls", "utterances without a word", stalled),
        judge("tokens in silence", in_silence, "max_in_silence", "tokens more than NeMo's"),
        judge("segments", exact, "min_exact_share", "share of segments with NeMo's tokens", at_least=True),
    ]


def _of_minute(counts: list[WordCounts], minutes: list[int], minute: int) -> float:
    return wer_percent([c for c, m in zip(counts, minutes, strict=True) if m == minute])
