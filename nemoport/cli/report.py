"""`nemoport report`: the page of a build's results, report.html."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option
from nemoport.cli.options import BUILD

OUT = option("--out", type=Path, help="file to write; default: BUILD/results/report.html")
AGAINST = option("--against", type=Path, metavar="OLD", help="an earlier report.html or build: what changed since")


def run(options: argparse.Namespace) -> None:
    from nemoport.validate.page.page import write_page

    print(write_page(options.build, options.out, options.against))


COMMAND = Command(
    "report",
    "write one page of all results, to look at",
    (BUILD, OUT, AGAINST),
    run,
    examples=("nemoport report --build build/my", "nemoport report --build build/my --against last-week.html --out changes.html"),
    extras="validate",
)
