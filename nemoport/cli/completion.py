"""`nemoport completion`: completion of commands, options and names for a shell."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


def run(options: argparse.Namespace) -> None:
    import shtab

    from nemoport.cli import parser

    made = parser()
    _complete(made)
    print(shtab.complete(made, options.shell))


def _complete(parser: argparse.ArgumentParser) -> None:
    """Marks what is a file, and gives options that have names of a registry these as choices."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _complete(one)
        elif names := getattr(action, "names", None):
            action.choices = list(names) or None
        elif action.type is Path or action.dest in ("artifact", "audio", "checkpoint", "tokens"):
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]


COMMAND = Command(
    "completion",
    "print a completion script for a shell",
    (option("shell", choices=SHELLS),),
    run,
    examples=(
        "nemoport completion bash > ~/.local/share/bash-completion/completions/nemoport",
        "nemoport completion zsh > ~/.zfunc/_nemoport",
        "nemoport completion fish > ~/.config/fish/completions/nemoport.fish",
    ),
)
