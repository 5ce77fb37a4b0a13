"""Rows of Markdown tables, and rates as percentages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def row(cells: Iterable[object]) -> str:
    """Formats one row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(columns: Sequence[str]) -> str:
    """Formats the two lines that a Markdown table begins with."""
    return f"{row(columns)}\n|{'---|' * len(columns)}"


def percent(rate: float | None) -> str:
    """Formats a fraction as a percentage with one decimal; "-" for None."""
    return "-" if rate is None else f"{100 * rate:.1f}"
