"""`nemoport quantize`: the fp32 graphs to another precision."""

from __future__ import annotations

import argparse

from nemoport.cli.command import Command, option
from nemoport.cli.options import BUILD, CALIBRATION

VARIANT = option("variant", help="fp16, int8-dynamic, int8-smoothquant, int8-weight, int4-mixed, ...; kv-... for kv caches")


def run(options: argparse.Namespace) -> None:
    from nemoport.quantize import build_variant

    print(build_variant(options.build, options.variant, options.calibration, progress=options.progress).folder)


COMMAND = Command("quantize", "convert the fp32 graphs to another precision", (VARIANT, BUILD, CALIBRATION), run)
