"""WER: word errors against the transcripts, beside NeMo's own on the same audio; of a corpus in several languages by
language too, so that no average hides the loss of one. Languages without spaces count characters."""

from __future__ import annotations

from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.score import WordCounts, count_all, is_unspaced, wer_difference, wer_percent

LANGUAGE = "language "  # begins the case of what is told of one


def run(context: Context) -> list[GateResult]:
    references, languages = ([getattr(u, name) for u in context.corpus.utterances] for name in ("text", "language"))
    results: list[GateResult] = []
    ours: list[list[WordCounts]] = [[] for _ in references]  # per utterance, one for each lookahead
    theirs: list[list[WordCounts]] = [[] for _ in references]
    for lookahead, heard, record in context.product():
        mine = count_all(references, [h.text for h in heard], languages)
        nemo = count_all(references, [r.text for r in record], languages)
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
    for language in dict.fromkeys(languages) if len(set(languages)) > 1 else ():
        members = [i for i, other in enumerate(languages) if other == language]
        results += _of_language(context, language, [ours[i] for i in members], [theirs[i] for i in members])
    corpus = context.corpus
    note = f"{len(references)} utterances, {corpus.seconds / 60:.1f} min, each at {len(context.product())} lookaheads; "
    note += f"corpus {corpus.digest[:16]}"
    return [*results, *_judge(context, "all lookaheads", ours, theirs, note, "")]


def _of_language(context: Context, language: str, ours: list[list[WordCounts]], theirs: list[list[WordCounts]]):
    """Over all lookaheads."""
    case, unit = f"{LANGUAGE}{language}", "% CER" if is_unspaced(language) else "% WER"
    mine, nemo = (wer_percent([count for row in rows for count in row]) for rows in (ours, theirs))
    counted = "characters" if is_unspaced(language) else "words"
    note = f"{mine:.2f} {unit}, NeMo {nemo:.2f}, on {sum(row[0].words for row in ours)} {counted}"
    return [
        *_judge(context, case, ours, theirs, note, "language"),
        context.judge("wer", f"{case}: rate", mine, limit=None, unit=unit, n=len(ours)),
        context.judge("wer", f"{case}: NeMo's rate", nemo, limit=None, unit=unit, n=len(ours)),
    ]


def _judge(context: Context, case: str, ours, theirs, evidence: str, which: str) -> list[GateResult]:
    difference = wer_difference(ours, theirs)
    interval = (difference.lower, difference.upper)
    suffix = f"_{which}" if which else ""
    shown = dict(unit="WER points", n=len(ours), interval=interval, evidence=evidence)
    results = [context.judge("wer", f"{case}: difference", difference.value, limit=f"max_difference_points{suffix}", **shown)]
    if not which:
        results.append(context.judge("wer", f"{case}: upper end", difference.upper, limit="max_upper_end_points", **shown))
    return results
