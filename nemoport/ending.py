"""Ends a process that was asked to end by a signal as Ctrl-C does: what it had begun is removed on the way out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP


@contextmanager
def orderly_end() -> Iterator[None]:
    """Raises SystemExit within its block where SIGTERM or SIGHUP comes: exit code 143 or 129, as a shell states it.

    A signal that is ignored or handled already, as under nohup, stays so. Does nothing outside of the main thread.
    """
    before = {}
    with suppress(ValueError):  # not the main thread
        for number in _SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def end_of_input(end: Callable[[], None]) -> Iterator[None]:
    """Calls `end` within its block where Ctrl-C or SIGTERM comes first. A second one ends the process as ever.

    A signal that is ignored stays so. Does nothing outside of the main thread.
    """
    before = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        end()

    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, first)
    try:
        yield
    finally:
        restore()


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
