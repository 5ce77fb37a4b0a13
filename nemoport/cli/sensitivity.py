"""`nemoport sensitivity`: the error that each part of the encoder makes in 4 bits."""

from __future__ import annotations

import argparse

from nemoport.cli.command import Command
from nemoport.cli.options import BUILD, CALIBRATION


def run(options: argparse.Namespace) -> None:
    from nemoport.quantize import measure_sensitivity
    from nemoport.quantize.sensitivity import heat_map

    print(heat_map(measure_sensitivity(options.build, options.calibration, progress=options.progress)))


COMMAND = Command(
    "sensitivity",
    "what each part of the encoder costs in 4 bits",
    (BUILD, CALIBRATION),
    run,
    examples=("nemoport sensitivity --build build/my --calibration calibration.jsonl",),
    extras="quantize",
)
