"""Tokens: utterances that come out token for token as from NeMo, for every lookahead, flush rule and packet size."""

from __future__ import annotations

from collections.abc import Sequence

from nemoport.validate.context import Context
from nemoport.validate.oracle import Record
from nemoport.validate.result import GateResult
from nemoport.validate.runs import Heard

SHOWN = 3  # differing utterances that the evidence quotes


def run(context: Context) -> list[GateResult]:
    results, pairs = [], []
    for lookahead, flush, heard, expected in context.compared():
        compared = list(zip(heard, expected, strict=True))
        results.append(_judge(context, f"lookahead {lookahead}, {flush}", compared, "min_exact_share_each"))
        pairs += compared
    return [*results, _judge(context, "all", pairs, "min_exact_share"), _distance(context, pairs)]


def exact(heard: Heard, expected: Record) -> bool:
    """Tokens, and the text that they spell."""
    return heard.tokens == expected.tokens and heard.text == expected.text


def _distance(context: Context, pairs: Sequence[tuple[Heard, Record]]) -> GateResult:
    """How many tokens differ: substituted, lost and added ones."""
    from rapidfuzz.distance import Levenshtein

    different = sum(Levenshtein.distance(heard.tokens, expected.tokens) for heard, expected in pairs)
    total = sum(len(expected.tokens) for _, expected in pairs)
    note = f"of {total} tokens"
    return context.judge("tokens", "different", different, limit=None, unit="tokens", n=len(pairs), evidence=note)


def _judge(context: Context, case: str, pairs: Sequence[tuple[Heard, Record]], limit: str) -> GateResult:
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
