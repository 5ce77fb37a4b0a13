"""Gate `batch`: 3 and 8 streams at once, joining one after another and ending at different times, are equal to one alone."""

from __future__ import annotations

from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.gates.numeric import differences

STREAMS = (3, 8)  # at once


def run(context: Context) -> list[GateResult]:
    results = []
    # For half precision and INT8 a sample of the utterances is enough: whether streams mix depends on the graph's structure.
    every = max(1, len(context.corpus.utterances) // int(context.limits.get("batch", "max_utterances")))
    for lookahead in context.lookaheads:
        alone = context.run(lookahead, 1, every)["full"]
        for streams in STREAMS:
            batch = context.run(lookahead, streams, every)["full"]
            differing = [run.id for run, one in zip(batch, alone, strict=True) if run.tokens != one.tokens]
            worst, _, _ = differences(batch, alone)
            evidence = f"frames within {worst:.1e}" + ("; other tokens: " if differing else "") + ", ".join(differing[:5])
            results.append(
                context.judge(
                    "batch",
                    f"{context_name(lookahead)}, {streams} streams",
                    1 - len(differing) / len(alone),
                    limit="min_equal_share",
                    at_least=True,
                    unit="share of utterances with the same tokens as alone",
                    n=len(alone) if len(alone) >= streams else 0,
                    evidence=evidence,
                )
            )
    return results
