"""`nemoport publish`: a package to a repository of the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option


def run(options: argparse.Namespace) -> None:
    from nemoport.package.hub import publish

    for line in publish(
        options.folder,
        options.repo,
        dry_run=options.dry_run,
        private=options.private,
        revision=options.revision,
        progress=options.progress,
    ):
        print(line)


COMMAND = Command(
    "publish",
    "upload a package to the Hub",
    (
        option("folder", type=Path),
        option("--repo", required=True, help="Hub repository, org/name"),
        option("--dry-run", action="store_true", help="print the plan only; the default without a token"),
        option("--private", action="store_true"),
        option("--revision", help="branch to upload to; default: main"),
    ),
    run,
    examples=("nemoport publish dist/my --repo me/my-onnx --dry-run",),
    extras="publish",
)
