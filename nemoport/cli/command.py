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


class Parser(argparse.ArgumentParser):
    """A parser of a subcommand, which takes options between its arguments: `transcribe PACKAGE --language de-DE FILE`.

    Python before 3.12.7 gives arguments that may be absent ("*", "?") nothing where an option stands before them, and refuses the
    rest.
    """

    _intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]  # typeshed overloads it
        if self._intermixed:  # called by parse_known_intermixed_args
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False


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
