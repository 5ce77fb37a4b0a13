"""Tokens: utterances that come out token for token as from NeMo, for every lookahead, flush rule and packet size."""

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
    for lookahead, flush, heard, expected in context.compared():
        compared = list(zip(heard, expected, strict=True))
        results.append(_judge(context, f"{context_name(lookahead)}, {flush}", compared, "min_exact_share_each"))
        pairs += compared
    return [*results, _judge(context, "all", pairs, "min_exact_share"), *_counts(context, pairs)]


def exact(heard: UtteranceRun, expected: Record) -> bool:
    """Tokens, and the text that they spell."""
    return heard.tokens == expected.tokens and heard.text == expected.text


def _counts(context: Context, pairs: Sequence[tuple[UtteranceRun, Record]]) -> list[GateResult]:
    """How many tokens differ (substituted, lost, added), and by what share there are more or fewer: the blank rate."""
    from rapidfuzz.distance import Levenshtein

    different = sum(Levenshtein.distance(heard.tokens, expected.tokens) for heard, expected in pairs)
    said, total = (sum(len(one[side].tokens) for one in pairs) for side in (0, 1))
    shown = dict(n=len(pairs), evidence=f"{said} tokens, NeMo {total}")
    change = abs(said - total) / total if total else float("nan")
    return [
        context.judge("tokens", "different", different, limit=None, unit="tokens", **shown),
        context.judge("tokens", "more or fewer", change, limit="max_rate_change", unit="share of NeMo's", **shown),
    ]


def _judge(context: Context, case: str, pairs: Sequence[tuple[UtteranceRun, Record]], limit: str) -> GateResult:
    differing = [(h, e) for h, e in pairs if not exact(h, e)]
    evidence = f"{len(differing)} of {len(pairs)} differ" if differing else ""
    for heard, expected in differing[:SHOWN]:
        evidence += f'; {heard.id} ({heard.packet_ms} ms packets): "{heard.text}", NeMo: "{expected.text}"'
    if not any(e.tokens for _, e in pairs):
        evidence, pairs = "NeMo heard no token in any utterance: there is nothing to compare", []
    share = 1 - len(differing) / len(pairs) if pairs else float("nan")
    packets = f"packets of {', '.join(str(p) for p in sorted({h.packet_ms for h, _ in pairs}))} ms"
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
