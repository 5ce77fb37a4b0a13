"""Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---") -> str:
    """Returns a table. head: titles of the columns; align: the second line's cell for every column, ---, or ---: for numbers."""
    lines = [head, [align] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
