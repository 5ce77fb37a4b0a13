"""`nemoport merge`: the results of machines that each evaluated a shard of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option
from nemoport.cli.evaluate import print_failed


def run(options: argparse.Namespace) -> int | None:
    from nemoport.evaluation.evaluate import merge

    return print_failed(merge(options.results, options.output))


COMMAND = Command(
    "merge",
    "merge results of `nemoport evaluate --shard I/N`",
    (
        option("results", nargs="+", type=Path, help="folders that `nemoport evaluate` wrote, one for each shard"),
        option("--output", required=True, type=Path, metavar="FOLDER", help="a new folder for all of them together"),
    ),
    run,
    examples=("nemoport merge results/1 results/2 --output results/all",),
    extras="evaluate",
)
