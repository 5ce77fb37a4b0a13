"""Gate `tokens`: share of utterances with exactly NeMo's tokens, for every lookahead, flush rule and packet size."""

from __future__ import annotations

from collections.abc import Sequence

from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.oracle import Record
from nemoport.validate.runs import UtteranceRun

SHOWN = 3  # differing utterances that the evidence quotes


def run(context: Context) -> list[GateResult]:
    results, pairs = [], []
    for lookahead, flush, runs, references in context.compared():
        compared = list(zip(runs, references, strict=True))
        results.append(_judge(context, f"{context_name(lookahead)}, {flush}", compared, "min_exact_share_each"))
        pairs += compared
    return [*results, _judge(context, "all", pairs, "min_exact_share"), *_counts(context, pairs)]


def exact(run: UtteranceRun, reference: Record) -> bool:
    """Whether the tokens are NeMo's, and the text that they spell."""
    return run.tokens == reference.tokens and run.text == reference.text


def _counts(context: Context, pairs: Sequence[tuple[UtteranceRun, Record]]) -> list[GateResult]:
    """Counts the tokens that differ (substituted, lost, added), and by what share there are more or fewer: the blank rate."""
    from rapidfuzz.distance import Levenshtein

    different = sum(Levenshtein.distance(run.tokens, reference.tokens) for run, reference in pairs)
    total, nemo_total = (sum(len(pair[side].tokens) for pair in pairs) for side in (0, 1))
    change = abs(total - nemo_total) / nemo_total if nemo_total else float("nan")
    n, evidence, share = len(pairs), f"{total} tokens, NeMo {nemo_total}", "share of NeMo's"
    return [
        context.judge("tokens", "different", different, limit=None, unit="tokens", n=n, evidence=evidence),
        context.judge("tokens", "more or fewer", change, limit="max_rate_change", unit=share, n=n, evidence=evidence),
    ]


def _judge(context: Context, case: str, pairs: Sequence[tuple[UtteranceRun, Record]], limit: str) -> GateResult:
    differing = [pair for pair in pairs if not exact(*pair)]
    evidence = f"{len(differing)} of {len(pairs)} differ" if differing else ""
    for run, reference in differing[:SHOWN]:
        evidence += f'; {run.id} ({run.packet_ms} ms packets): "{run.text}", NeMo: "{reference.text}"'
    if not any(reference.tokens for _, reference in pairs):
        evidence, pairs = "NeMo emitted no token in any utterance: there is nothing to compare", []
    share = 1 - len(differing) / len(pairs) if pairs else float("nan")
    packets = f"packets of {', '.join(str(p) for p in sorted({run.packet_ms for run, _ in pairs}))} ms"
    return context.judge(
        "tokens",
        case,
        share,
        limit=limit,
        at_least=True,
        unit="share of utterances token-exact",
        n=len(pairs),
        evidence=evidence or packets,
    )
