"""The description of a subcommand. Each module of a subcommand has one: `COMMAND`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any


class Names:
    """The names of a registry, which is imported when they are shown or completed: `%(names)s` in an option's help."""

    def __init__(self, read: Callable[[], Iterable[str]]):
        self._read = read

    @cached_property
    def _found(self) -> list[str]:
        try:
            return list(self._read())
        except ImportError:  # of an extra that is not installed
            return []

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __str__(self) -> str:
        return ", ".join(self._found) or "none here: packages that name them are not installed"


@dataclass(frozen=True)
class Option:
    """An argument of a subcommand. flags: its spellings, or its name where it is positional; settings: as argparse has them.

    names: what it may be, of a registry. group: title under which the help lists it.
    """

    flags: tuple[str, ...]
    settings: dict[str, Any]
    names: Names | None = None
    group: str = ""

    def but(self, **settings: Any) -> Option:
        """The same argument with other settings."""
        return replace(self, settings=self.settings | settings)


def option(*flags: str, names: Callable[[], Iterable[str]] | None = None, **settings: Any) -> Option:
    """Written as a call of argparse's `add_argument`."""
    return Option(flags, settings, Names(names) if names else None)


def grouped(title: str, *options: Option) -> tuple[Option, ...]:
    """The same options, listed under a title."""
    return tuple(replace(one, group=title) for one in options)


@dataclass(frozen=True)
class Command:
    """A subcommand. help: its line in `nemoport --help`; run: takes the parsed options, returns the exit code or None for 0;
    examples: whole command lines; extras: those of pyproject.toml that it needs beyond the installation without any.

    `run` imports what it needs when it is called, so that `nemoport --help` is instant.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    run: Callable[[argparse.Namespace], int | None]
    examples: tuple[str, ...] = ()
    extras: str = ""
