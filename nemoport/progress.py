"""Progress lines: what a long step reports while it runs."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]  # called with a line of text for each thing that begins


def silent(line: str) -> None:
    """Shows no progress. A function of a module, so that it can be handed to another process."""
