"""`nemoport quantize`: the fp32 graphs to another precision."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option
from nemoport.cli.options import BUILD, CALIBRATION
from nemoport.cli.registries import variants

STUDENT = option("--student", type=Path, help="student.npz of `nemoport distill`, for int2-weight")
VARIANT = option("variant", names=variants, help="%(names)s; kv- is for kv caches")


def run(options: argparse.Namespace) -> None:
    from nemoport.quantize import build_variant

    made = build_variant(options.build, options.variant, options.calibration, options.student, progress=options.progress)
    print(made.folder)


COMMAND = Command(
    "quantize",
    "convert the fp32 graphs to another precision",
    (VARIANT, BUILD, CALIBRATION, STUDENT),
    run,
    examples=(
        "nemoport quantize kv-int8-weight --build build/my",
        "nemoport quantize int8-static --build build/my --calibration calibration.jsonl",
        "nemoport quantize kv-int2-weight --build build/my --student student/student.npz",
    ),
    extras="quantize",
)
