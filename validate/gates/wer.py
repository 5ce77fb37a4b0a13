"""Gate `wer`: word errors against the transcripts, compared with NeMo's on the same audio.

Of a corpus in several languages it judges each language too, so that no average hides the loss of one. In languages without
spaces characters are counted. A corpus of MANY utterances resolves smaller differences: it has limits of its own.
"""

from __future__ import annotations

from typing import Any

from nemoport.score import WordCounts, count_all, is_unspaced, normalise, wer_difference, wer_percent
from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.differing import differing
from nemoport.validate.gate_result import GateResult

Counts = list[list[WordCounts]]  # of each utterance, one for each lookahead
LANGUAGE = "language "  # prefix of the case of one language's figures
MANY = 3000  # utterances from which on the figures over everything are judged by the limits that end in _many


def run(context: Context) -> list[GateResult]:
    texts, languages = ([getattr(u, name) for u in context.corpus.utterances] for name in ("text", "language"))
    results: list[GateResult] = []
    all_counts: Counts = [[] for _ in texts]  # of each utterance, at every lookahead
    all_nemo: Counts = [[] for _ in texts]
    compared = context.compared_by_default_rule()
    for lookahead, runs, references in compared:
        case, n = context_name(lookahead), len(runs)
        counts = count_all(texts, [run.text for run in runs], languages)
        nemo = count_all(texts, [reference.text for reference in references], languages)
        for rows, row_counts in ((all_counts, counts), (all_nemo, nemo)):
            for row, count in zip(rows, row_counts, strict=True):
                row.append(count)
        empty = sum(not normalise(run.text) and bool(normalise(r.text)) for run, r in zip(runs, references, strict=True))
        note = f"{wer_percent(counts):.2f} % WER, NeMo {wer_percent(nemo):.2f} %, on {sum(c.words for c in counts)} words"
        results += _judge(context, case, [[c] for c in counts], [[c] for c in nemo], note, "each")
        results += [
            context.judge("wer", f"{case}: WER", wer_percent(counts), limit=None, unit="%", n=n),
            context.judge("wer", f"{case}: NeMo's WER", wer_percent(nemo), limit=None, unit="%", n=n),
            context.judge("wer", f"{case}: lost", empty, limit="max_empty", unit="utterances without a word", n=n),
        ]
    for language in dict.fromkeys(languages) if len(set(languages)) > 1 else ():
        members = [i for i, other in enumerate(languages) if other == language]
        results += _of_language(context, language, [all_counts[i] for i in members], [all_nemo[i] for i in members])
    context.details["wer"] = _texts(context, all_counts, all_nemo)
    corpus = context.corpus
    note = f"{len(texts)} utterances, {corpus.seconds / 60:.1f} min, each at {len(compared)} lookaheads; "
    note += f"corpus {corpus.digest[:16]}"
    return [*results, *_judge(context, "all lookaheads", all_counts, all_nemo, note, "")]


def _texts(context: Context, counts: Counts, nemo: Counts) -> dict[str, Any]:
    """Returns `Texts` of details.py."""
    utterances, compared = context.corpus.utterances, context.compared_by_default_rule()
    return {
        "rate_hz": context.spec.frontend.sample_rate_hz,
        "languages": [utterance.language for utterance in utterances],
        "words": [row[0].words if row else 0 for row in nemo],
        "runs": [
            {
                "lookahead": lookahead,
                "errors": [row[place].errors for row in counts],
                "nemo_errors": [row[place].errors for row in nemo],
            }
            for place, (lookahead, _, _) in enumerate(compared)
        ],
        **differing(utterances, compared),
    }


def _of_language(context: Context, language: str, counts: Counts, nemo: Counts) -> list[GateResult]:
    """Judges the utterances in one language, over all lookaheads."""
    case, n, unspaced = f"{LANGUAGE}{language}", len(counts), is_unspaced(language)
    unit, counted = ("% CER", "characters") if unspaced else ("% WER", "words")
    rate, nemo_rate = (wer_percent([count for row in rows for count in row]) for rows in (counts, nemo))
    note = f"{rate:.2f} {unit}, NeMo {nemo_rate:.2f}, on {sum(row[0].words for row in counts)} {counted}"
    return [
        *_judge(context, case, counts, nemo, note, "language"),
        context.judge("wer", f"{case}: rate", rate, limit=None, unit=unit, n=n),
        context.judge("wer", f"{case}: NeMo's rate", nemo_rate, limit=None, unit=unit, n=n),
    ]


def _judge(context: Context, case: str, counts: Counts, nemo: Counts, evidence: str, which: str) -> list[GateResult]:
    """Judges the difference from NeMo. which: suffix of the limit's name; "" for the figure over everything, whose upper end of
    the interval is judged too."""
    difference = wer_difference(counts, nemo)

    def judge(name: str, points: float, limit: str) -> GateResult:
        return context.judge(
            "wer",
            f"{case}: {name}",
            points,
            limit=limit,
            unit="WER points",
            n=len(counts),
            interval=(difference.lower, difference.upper),
            evidence=evidence,
        )

    if which:
        return [judge("difference", difference.value, f"max_difference_points_{which}")]
    size = "_many" if len(counts) >= MANY else ""
    return [
        judge("difference", difference.value, f"max_difference_points{size}"),
        judge("upper end", difference.upper, f"max_upper_end_points{size}"),
    ]
