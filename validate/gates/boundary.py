"""Boundary: first and last words, which a wrong first chunk or a lost tail costs first."""

from __future__ import annotations

from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.score import normalise


def run(context: Context) -> list[GateResult]:
    results = []
    for lookahead, heard, record in context.product():
        pairs = [(normalise(h.text).split(), normalise(r.text).split()) for h, r in zip(heard, record, strict=True)]
        spoken = [(ours, theirs) for ours, theirs in pairs if theirs]
        for case, at in (("first word", 0), ("last word", -1)):
            lost = [f"{' '.join(o) or 'nothing'} / {' '.join(t)}" for o, t in spoken if not o or o[at] != t[at]]
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
