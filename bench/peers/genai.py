"""Lays variants out for onnxruntime-genai, by our layout, and installs it in an environment of its own.

    python bench/peers/genai.py --work build/genai [--build BUILD [--variant int8-dynamic] [--lookahead 6]]

Writes WORK/venv, and WORK/package/<variant> for `bench/streaming.py --genai` and `bench/genai_rows.py`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import venv
from pathlib import Path

from laid_out import lay_out

PACKAGES = ["onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "numpy==2.4.6", "soundfile==0.14.0"]


def environment(folder: Path) -> Path:
    """Returns the Python of an environment with onnxruntime-genai, which is made where it is absent."""
    python = folder / "bin" / "python"
    if not (folder / "installed").is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (folder / "installed").touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--build", type=Path, help="without it the environment alone is made")
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: fp32")
    parser.add_argument("--lookahead", type=int, help="default: the build's")
    options = parser.parse_args()
    environment(options.work / "venv")
    if options.build:
        package = options.work / "package"
        shutil.rmtree(package, ignore_errors=True)
        lay_out("genai", options.build, options.variants or ["fp32"], package, options.lookahead)


if __name__ == "__main__":
    main()
