"""The ways in which NeMo runs a model, and the names of its runs."""

from __future__ import annotations

from nemoport.buffered import ChunkContext
from nemoport.spec import Lookahead

STREAMING, OFFLINE, BUFFERED = "streaming", "offline", "buffered"


def mode_of(lookahead: Lookahead, cache_aware: str = STREAMING) -> str:
    """Returns the mode of a run: OFFLINE of whole recordings, BUFFERED of windows, `cache_aware` of a lookahead in frames."""
    return OFFLINE if lookahead is None else BUFFERED if isinstance(lookahead, ChunkContext) else cache_aware


def run_name(mode: str, lookahead: Lookahead) -> str:
    """Returns the name of a run's files."""
    numbers = lookahead if isinstance(lookahead, ChunkContext) else [] if lookahead is None else [lookahead]
    return "-".join([mode, *map(str, numbers)])
