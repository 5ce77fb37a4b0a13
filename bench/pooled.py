"""Word errors of a variant over the committed evaluation speech and the further one, beside NeMo's, as one difference.

The committed utterances are heard at every lookahead; the further ones at one each, a part of them at every lookahead:
for the same work more voices and sentences tell more than the same ones heard four times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoport.files import read_json, write_json
from nemoport.score import Interval, WordCounts, count_all, wer_difference, wer_percent
from nemoport.speech.corpus import Corpus
from nemoport.validate.context import Context
from nemoport.validate.oracle import OFFLINE, STREAMING, Record, record_runs
from nemoport.validate.runs import UtteranceRun

Pairs = list[tuple[str, UtteranceRun, Record]]  # what was said, what the artifact heard, what NeMo heard


@dataclass(frozen=True)
class Pooled:
    """wer: percent. above: WER points above NeMo. tokens_other: share that NeMo hears otherwise. runs: utterances at a
    lookahead."""

    wer: float
    above: Interval
    tokens_other: float
    runs: int
    utterances: int
    words: int


def measure(context: Context, further: Sequence[Corpus]) -> Pooled:
    """further: one corpus for each lookahead of the checkpoint, or none."""
    return _pool([*_committed(context), *_further(context, further)])


def measure_once(context: Context, further: Sequence[Corpus], kept: Path) -> Pooled:
    """The figures in the file `kept`, if they are of the same artifact, audio and code; else measured and kept there."""
    stamp = [context.sha256, context.oracle.digest, context.judge_digest, *(part.digest for part in further)]
    if kept.is_file() and (raw := read_json(kept, f"remove {kept}"))["stamp"] == stamp:
        return Pooled(**{**raw["figures"], "above": Interval(**raw["figures"]["above"])})
    figures = measure(context, further)
    write_json(kept, {"stamp": stamp, "figures": {**vars(figures), "above": vars(figures.above)}})
    return figures


def further_runs(context: Context, lookahead: int, part: Corpus) -> Pairs:
    """By the product's flush rule, but at lookahead 0 by NeMo's, which alone can be compared with there."""
    mode, flush = (OFFLINE, "full") if lookahead else (STREAMING, "nemo")
    oracle = record_runs(context.checkpoint, part, [(mode, lookahead)], context.folder.parent, context.progress)
    heard = context.runner.run(part, lookahead, context.limits.streams)[flush]
    return list(zip([u.text for u in part.utterances], heard, oracle.runs[mode, lookahead], strict=True))


def _committed(context: Context) -> list[Pairs]:
    runs = [list(zip(heard, record, strict=True)) for _, heard, record in context.compared_by_default_rule()]
    texts = [u.text for u in context.corpus.utterances]
    return [[(text, *one) for one in of_each] for text, *of_each in zip(texts, *runs, strict=True)]


def _further(context: Context, further: Sequence[Corpus]) -> list[Pairs]:
    lookaheads = context.spec.lookaheads if further else ()
    return [[one] for r, part in zip(lookaheads, further, strict=True) for one in further_runs(context, r, part)]


def _pool(utterances: list[Pairs]) -> Pooled:
    """utterances: of each the runs at its lookaheads."""
    from rapidfuzz.distance import Levenshtein

    def counts(side: int) -> list[list[WordCounts]]:
        return [count_all([run[0] for run in runs], [run[side].text for run in runs]) for runs in utterances]

    runs = [run for of_one in utterances for run in of_one]
    ours, theirs = counts(1), counts(2)
    pooled = [c for of_one in ours for c in of_one]
    other = sum(Levenshtein.distance(heard.tokens, record.tokens) for _, heard, record in runs)
    total = sum(len(record.tokens) for _, _, record in runs)
    words = sum(c.words for c in pooled)
    return Pooled(wer_percent(pooled), wer_difference(ours, theirs), other / total, len(runs), len(utterances), words)
