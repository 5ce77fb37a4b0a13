"""`nemoport sensitivity`: the error that each part of the encoder makes in 4 bits."""

from __future__ import annotations

import argparse
import json

from nemoport.cli.command import Command
from nemoport.cli.options import BUILD, CALIBRATION, JSON


def run(options: argparse.Namespace) -> None:
    from nemoport.quantize import measure_sensitivity
    from nemoport.quantize.sensitivity import heat_map

    costs = measure_sensitivity(options.build, options.calibration, progress=options.progress)
    if options.json:
        print(json.dumps({group: {"snr_db": cost.snr_db, "tokens_different": cost.tokens} for group, cost in costs.items()}))
    else:
        print(heat_map(costs))


COMMAND = Command(
    "sensitivity",
    "what each part of the encoder costs in 4 bits",
    (BUILD, CALIBRATION, JSON),
    run,
    examples=("nemoport sensitivity --build build/my --calibration calibration.jsonl",),
    extras="quantize",
)
