"""Recordings that are longer than one pass of an offline model: overlapping windows, whose tokens are merged where they agree.

The memory of a pass grows with its length, and a model transcribes best what is as long as its training utterances. Each window
is transcribed as a recording of its own. In an overlap both windows give the same tokens, but for words that are cut at a
window's edge: so the result changes from one window to the other in the middle of the longest stretch of tokens that both have
at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from nemoport.events import Event, EventSpec

SAME_TIME_S = 0.4  # two windows may put a token some frames apart


@dataclass(frozen=True)
class Timed:
    """Tokens, the seconds from the recording's start at which each was emitted, the seconds that each lasts, and the confidence
    of each."""

    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    durations: tuple[float, ...]
    confidences: tuple[float, ...]

    def shift(self, seconds: float) -> Timed:
        """Returns the tokens with times that are later by `seconds`."""
        return replace(self, seconds=tuple(s + seconds for s in self.seconds))

    def slice(self, start: int, stop: int) -> Timed:
        """Returns the tokens from `start` to `stop`, which is not included."""
        return Timed(*(column[start:stop] for column in self._columns()))

    def concat(self, other: Timed) -> Timed:
        """Returns these tokens and the other ones behind them."""
        return Timed(*(here + there for here, there in zip(self._columns(), other._columns(), strict=True)))

    def events(self, spec: EventSpec | None) -> tuple[Event, ...]:
        """Returns the events among the tokens, in order. spec: the model's, None for one that marks none."""
        kinds = spec.kinds if spec else {}
        columns = zip(self.tokens, self.seconds, self.confidences, strict=True)
        return tuple(Event(kinds[token], seconds, confidence) for token, seconds, confidence in columns if token in kinds)

    def _columns(self) -> tuple[tuple, ...]:
        return self.tokens, self.seconds, self.durations, self.confidences


def merge(parts: Sequence[tuple[float, Timed]]) -> Timed:
    """Merges the tokens of windows that overlap.

    parts: (start of the window in the recording, in seconds; its tokens, with times from its own start), in order.
    """
    (start, merged), *rest = parts
    merged = merged.shift(start)
    for start, part in rest:
        part = part.shift(start)
        kept, skipped = _seam(merged, part, start)
        merged = merged.slice(0, kept).concat(part.slice(skipped, len(part.tokens)))
    return merged


def _seam(before: Timed, after: Timed, start: float) -> tuple[int, int]:
    """Returns (tokens to keep of `before`, tokens to leave out of `after`); the overlap begins at `start`."""
    first = next((i for i, s in enumerate(before.seconds) if s >= start), len(before.tokens))
    end = max(before.seconds, default=start)
    last = next((i for i, s in enumerate(after.seconds) if s > end), len(after.tokens))
    left, right = before.tokens[first:], after.tokens[:last]
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    best, at = 0, None
    for i, j, size in blocks:
        close = [k for k in range(size) if abs(before.seconds[first + i + k] - after.seconds[j + k]) <= SAME_TIME_S]
        if len(close) > best:
            best, at = len(close), (first + i + close[len(close) // 2], j + close[len(close) // 2])
    if at is not None:
        return at
    middle = (start + end) / 2  # nothing in common: one of them is silent there, or they disagree
    return (
        next((i for i, s in enumerate(before.seconds) if s >= middle), len(before.tokens)),
        next((i for i, s in enumerate(after.seconds) if s >= middle), len(after.tokens)),
    )
