"""`nemoport quantize`: the fp32 graphs to another precision."""

from __future__ import annotations

import argparse

from nemoport.cli.command import Command, option
from nemoport.cli.options import BUILD, CALIBRATION
from nemoport.cli.registries import variants

VARIANT = option("variant", names=variants, help="%(names)s; kv- is for kv caches")


def run(options: argparse.Namespace) -> None:
    from nemoport.quantize import build_variant

    print(build_variant(options.build, options.variant, options.calibration, progress=options.progress).folder)


COMMAND = Command(
    "quantize",
    "convert the fp32 graphs to another precision",
    (VARIANT, BUILD, CALIBRATION),
    run,
    examples=(
        "nemoport quantize kv-int8-weight --build build/my",
        "nemoport quantize int8-static --build build/my --calibration calibration.jsonl",
    ),
    extras="quantize",
)
