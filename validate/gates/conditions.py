"""Conditions: telephone, noise and distance, beside NeMo's own streaming of the same recordings."""

from __future__ import annotations

from nemoport.spec import context_name
from nemoport.speech.conditions import CONDITIONS, degraded
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.gates.tokens import exact
from nemoport.validate.score import count_all, wer_percent


def run(context: Context) -> list[GateResult]:
    lookahead = context.lookaheads[0]
    runner, build = context.runner, context.folder.parent
    results = []
    for condition in CONDITIONS:
        corpus = degraded(condition, context.corpus, build)
        record = context.nemo_reference(corpus, lookahead)
        heard = runner.run(corpus, lookahead, context.limits.streams)[context.last_rule]
        texts, languages = zip(*((u.text, u.language) for u in corpus.utterances), strict=True)
        mine, nemo = (wer_percent(count_all(texts, [r.text for r in runs], languages)) for runs in (heard, record))
        same = sum(exact(h, r) for h, r in zip(heard, record, strict=True)) / len(record)
        shown = dict(n=len(record), evidence=f"{context_name(lookahead)}: {mine:.1f} % WER, NeMo {nemo:.1f} %")
        results += [
            context.judge(
                "conditions",
                f"{condition}: difference",
                mine - nemo,
                limit="max_difference_points",
                unit="WER points",
                **shown,
            ),
            context.judge(
                "conditions",
                f"{condition}: token-exact",
                same,
                limit="min_exact_share",
                at_least=True,
                unit="share of utterances token-exact",
                **shown,
            ),
        ]
    return results
