"""Gate `conditions`: telephone, noise and distance, compared with NeMo's own run of the same recordings."""

from __future__ import annotations

from nemoport.score import count_all, wer_percent
from nemoport.spec import Lookahead, context_name
from nemoport.speech.conditions import CONDITIONS, degraded
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.gates.tokens import exact


def run(context: Context) -> list[GateResult]:
    return [
        result
        for place, lookahead in enumerate(context.long_lookaheads)
        for condition in CONDITIONS
        for result in _of(context, condition, lookahead, f"{context_name(lookahead)}, " if place else "")
    ]


def _of(context: Context, condition: str, lookahead: Lookahead, prefix: str) -> list[GateResult]:
    """Judges one condition at one lookahead. prefix: of the cases."""
    corpus = degraded(condition, context.corpus, context.folder.parent)
    references = context.nemo_reference(corpus, lookahead)
    runs = context.runner.run(corpus, lookahead, context.limits.streams)[context.reference_rule]
    texts, languages = zip(*((u.text, u.language) for u in corpus.utterances), strict=True)
    own, nemo = (wer_percent(count_all(texts, [r.text for r in part], languages)) for part in (runs, references))
    same = sum(exact(o, r) for o, r in zip(runs, references, strict=True)) / len(references)
    n, evidence = len(references), f"{context_name(lookahead)}: {own:.1f} % WER, NeMo {nemo:.1f} %"
    return [
        context.judge(
            "conditions",
            f"{prefix}{condition}: difference",
            own - nemo,
            limit="max_difference_points",
            unit="WER points",
            n=n,
            evidence=evidence,
        ),
        context.judge(
            "conditions",
            f"{prefix}{condition}: token-exact",
            same,
            limit="min_exact_share",
            at_least=True,
            unit="share of utterances token-exact",
            n=n,
            evidence=evidence,
        ),
    ]
