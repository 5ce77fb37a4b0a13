"""Lays variants out for onnxruntime-genai, by our layout, and installs it in an environment of its own.

    python bench/peers/genai.py --work build/genai [--build BUILD [--variant int8-dynamic] [--lookahead 6]]

Makes build/genai/venv, and writes WORK/package/<variant> for `bench/whole.py` and `bench/genai_rows.py`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import environments
from laid_out import lay_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--build", type=Path, help="without it the environment alone is made")
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: fp32")
    parser.add_argument("--lookahead", type=int, help="default: the build's")
    options = parser.parse_args()
    environments.make("genai")
    if options.build:
        package = options.work / "package"
        shutil.rmtree(package, ignore_errors=True)
        lay_out("genai", options.build, options.variants or ["fp32"], package, options.lookahead)


if __name__ == "__main__":
    main()
