"""Word errors of a variant over much speech, beside NeMo's, as one difference.

The committed utterances are run at every lookahead; the further ones at one each, a part of them at every lookahead: for the
same work more voices and sentences show more than the same ones run four times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import further

from nemoport.score import Interval, WordCounts, count_all, wer_difference, wer_percent
from nemoport.validate.context import Context
from nemoport.validate.oracle import Record

Pairs = list[
    tuple[str, further.Emitted | Record, further.Emitted | Record]
]  # what was spoken, what the artifact emits, what NeMo does


@dataclass(frozen=True)
class Pooled:
    """wer: percent. above: WER points above NeMo. tokens_other: share that NeMo emits otherwise. runs: utterances at a
    lookahead."""

    wer: float
    above: Interval
    tokens_other: float
    runs: int
    utterances: int
    words: int


def measure(
    context: Context, fp32: Context, parts: Sequence[further.Part], committed: bool, run: further.Run = further.kept
) -> Pooled:
    """fp32: in NeMo's place on the parts; see `further`. committed: whether the context's own corpus is among the speech."""
    utterances = _committed(context) if committed else []
    for part in parts:
        pairs = zip(part[1].utterances, run(context, part), further.kept(fp32, part), strict=True)
        utterances += [[(u.text, ours, its)] for u, ours, its in pairs]
    return _pool(utterances)


def _committed(context: Context) -> list[Pairs]:
    runs = [list(zip(emitted, record, strict=True)) for _, emitted, record in context.compared_by_default_rule()]
    texts = [u.text for u in context.corpus.utterances]
    return [[(text, *one) for one in of_each] for text, *of_each in zip(texts, *runs, strict=True)]


def _pool(utterances: list[Pairs]) -> Pooled:
    """utterances: of each the runs at its lookaheads."""
    from rapidfuzz.distance import Levenshtein

    def counts(side: int) -> list[list[WordCounts]]:
        return [count_all([run[0] for run in runs], [run[side].text for run in runs]) for runs in utterances]

    runs = [run for of_one in utterances for run in of_one]
    ours, theirs = counts(1), counts(2)
    pooled = [c for of_one in ours for c in of_one]
    other = sum(Levenshtein.distance(emitted.tokens, record.tokens) for _, emitted, record in runs)
    total = sum(len(record.tokens) for _, _, record in runs)
    words = sum(c.words for c in pooled)
    return Pooled(wer_percent(pooled), wer_difference(ours, theirs), other / total, len(runs), len(utterances), words)
