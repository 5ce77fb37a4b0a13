"""Gate `boundary`: first and last words, which are the first to be lost by a wrong first chunk or a lost tail."""

from __future__ import annotations

from nemoport.score import normalise
from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult


def run(context: Context) -> list[GateResult]:
    results = []
    for lookahead, runs, references in context.compared_by_default_rule():
        pairs = [(normalise(o.text).split(), normalise(r.text).split()) for o, r in zip(runs, references, strict=True)]
        spoken = [(words, nemo) for words, nemo in pairs if nemo]
        for case, at in (("first word", 0), ("last word", -1)):
            lost = [f"{' '.join(w) or 'nothing'} / {' '.join(n)}" for w, n in spoken if not w or w[at] != n[at]]
            share = 1 - len(lost) / len(spoken) if spoken else float("nan")
            results.append(
                context.judge(
                    "boundary",
                    f"{context_name(lookahead)}, {case}",
                    share,
                    limit="min_share",
                    at_least=True,
                    unit="share of utterances whose word is NeMo's",
                    n=len(spoken),
                    evidence="; ".join(lost[:3]),
                )
            )
    return results
