"""`nemoport verify`: a package against its own manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option
from nemoport.cli.options import VARIANTS


def run(options: argparse.Namespace) -> None:
    from nemoport.package.verify import verify

    for line in verify(options.folder, options.variants):
        print(line)


COMMAND = Command("verify", "check a package's files against its manifest", (option("folder", type=Path), VARIANTS), run)
