"""The parser of the command line, made of the subcommands' descriptions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from nemoport.cli.command import Command

FIRST = (
    "nemoport run nvidia/parakeet-tdt-0.6b-v3 --quick --dry-run",
    "nemoport transcribe dist/my talk.wav",
    "nemoport run --help",
)
EXIT_CODES = """exit codes:
  0    done
  1    a gate failed
  2    unusable input: a file, an option, a missing package
  3    a fault of nemoport itself
  130  Ctrl-C; 143 SIGTERM; 141 the reader of the output has ended"""


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


def make_parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """Parses the arguments of every subcommand; `run` of the result is the subcommand's function."""
    made = argparse.ArgumentParser(
        "nemoport",
        description="NeMo speech recognisers as proven ONNX packages",
        epilog=f"{_examples(FIRST)}\n\n{EXIT_CODES}",
        formatter_class=_formatter,
    )
    made.add_argument("--version", action="version", version=f"nemoport {version('nemoport')}")
    # prog: argparse would make a formatter to find it, which imports rich.
    subcommands = made.add_subparsers(metavar="COMMAND", required=True, prog="nemoport", parser_class=Parser)
    for command in commands:
        one = subcommands.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            epilog=_examples(command.examples),
            formatter_class=_formatter,
        )
        _add_options(one, command)
        one.add_argument("-q", "--quiet", action="store_true", help="no progress; results and errors only")
        one.set_defaults(run=command.run, extras=command.extras)
    return made


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    groups: dict[str, Any] = {"": parser}
    for option in command.options:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        action = groups[option.group].add_argument(*option.flags, **option.settings)
        if option.names:
            action.names = option.names  # for %(names)s in the help


def _examples(lines: Sequence[str]) -> str | None:
    return "\n  ".join(["examples:", *lines]) if lines else None


def _formatter(*arguments: Any, **settings: Any) -> argparse.HelpFormatter:
    """Colours on a terminal, but with NO_COLOR. Imported when a help or a usage is shown."""
    from rich_argparse import RawDescriptionRichHelpFormatter

    class Formatter(RawDescriptionRichHelpFormatter):
        text_markup = help_markup = False  # texts have square brackets of their own
        group_name_formatter = str

    return Formatter(*arguments, **settings)
