"""WER: word errors against the transcripts, beside NeMo's own on the same audio."""

from __future__ import annotations

from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.result import GateResult
from nemoport.validate.score import WordCounts, count_all, wer_difference, wer_percent


def run(context: Context) -> list[GateResult]:
    references = [u.text for u in context.corpus.utterances]
    results: list[GateResult] = []
    ours: list[list[WordCounts]] = [[] for _ in references]  # per utterance, one for each lookahead
    theirs: list[list[WordCounts]] = [[] for _ in references]
    for lookahead, heard, record in context.product():
        mine = count_all(references, [h.text for h in heard])
        nemo = count_all(references, [r.text for r in record])
        for rows, counts in ((ours, mine), (theirs, nemo)):
            for row, count in zip(rows, counts, strict=True):
                row.append(count)
        empty = sum(not h.tokens and bool(r.tokens) for h, r in zip(heard, record, strict=True))
        note = f"{wer_percent(mine):.2f} % WER, NeMo {wer_percent(nemo):.2f} %, on {sum(c.words for c in mine)} words"
        results += _judge(context, f"{context_name(lookahead)}", [[c] for c in mine], [[c] for c in nemo], note, "each")
        n = len(heard)
        results += [
            context.judge("wer", f"{context_name(lookahead)}: WER", wer_percent(mine), limit=None, unit="%", n=n),
            context.judge("wer", f"{context_name(lookahead)}: NeMo's WER", wer_percent(nemo), limit=None, unit="%", n=n),
            context.judge(
                "wer", f"{context_name(lookahead)}: lost", empty, limit="max_empty", unit="utterances without a word", n=n
            ),
        ]
    corpus = context.corpus
    note = f"{len(references)} utterances, {corpus.seconds / 60:.1f} min, each at {len(context.product())} lookaheads; "
    note += f"corpus {corpus.digest[:16]}"
    return [*results, *_judge(context, "all lookaheads", ours, theirs, note, "")]


def _judge(context: Context, case: str, ours, theirs, evidence: str, which: str) -> list[GateResult]:
    difference = wer_difference(ours, theirs)
    interval = (difference.lower, difference.upper)
    suffix = f"_{which}" if which else ""
    shown = dict(unit="WER points", n=len(ours), interval=interval, evidence=evidence)
    results = [
        context.judge("wer", f"{case}: difference", difference.value, limit=f"max_difference_points{suffix}", **shown)
    ]
    if not which:
        results.append(
            context.judge("wer", f"{case}: upper end", difference.upper, limit="max_upper_end_points", **shown)
        )
    return results
