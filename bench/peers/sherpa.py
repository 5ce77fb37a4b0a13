"""Lays variants out for sherpa-onnx at a lookahead, whatever the build's default.

    python bench/peers/sherpa.py --build BUILD --work build/peers/sherpa [--variant int8-dynamic] [--lookahead 6]

Writes WORK/<variant> for `bench/whole.py`, by our layout, which asks no gate.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from laid_out import lay_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: fp32")
    parser.add_argument("--lookahead", type=int, default=6)
    options = parser.parse_args()
    for variant in options.variants or ["fp32"]:
        shutil.rmtree(options.work / variant, ignore_errors=True)
        lay_out("sherpa-onnx", options.build, [variant], options.work / variant, options.lookahead)


if __name__ == "__main__":
    main()
