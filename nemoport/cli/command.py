"""The description of a subcommand. Each module of a subcommand has one: `COMMAND`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """An argument of a subcommand. flags: its spellings, or its name where it is positional; settings: as argparse has them."""

    flags: tuple[str, ...]
    settings: dict[str, Any]

    def but(self, **settings: Any) -> Option:
        """The same argument with other settings."""
        return Option(self.flags, self.settings | settings)


def option(*flags: str, **settings: Any) -> Option:
    """Written as a call of argparse's `add_argument`."""
    return Option(flags, settings)


@dataclass(frozen=True)
class Command:
    """A subcommand. help: its line in `nemoport --help`; run: takes the parsed options, returns the exit code or None for 0.

    `run` imports what it needs when it is called, so that `nemoport --help` is instant.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    run: Callable[[argparse.Namespace], int | None]
