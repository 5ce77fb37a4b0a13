"""What a long step reports while it runs: lines, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """How far a step is. Reports of the same name are of the same step; it has ended when `done` has reached `total`.

    total: None where it is not known; such a step has ended when `done` is above 0. unit: of both, such as "s of audio".
    """

    name: str
    done: float
    total: float | None = None
    unit: str = ""

    @property
    def ended(self) -> bool:
        return self.done > 0 if self.total is None else self.done >= self.total

    def __str__(self) -> str:
        if self.total is None:
            return self.name
        return f"{self.name}: {self.done:.0f} of {self.total:.0f} {self.unit}".rstrip()


Progress = Callable[["str | Step"], None]  # called with a line of text, or with how far a step is


def silent(report: str | Step) -> None:
    """Shows no progress. A function of a module, so that it can be handed to another process."""


@contextmanager
def step(name: str, progress: Progress) -> Iterator[None]:
    """Reports the beginning and the end of its block, a step whose length is not known. One that fails does not end."""
    progress(Step(name, 0))
    yield
    progress(Step(name, 1))
