"""Lays variants out for sherpa-onnx at a lookahead, whatever the build's default.

    python bench/peers/sherpa.py --build BUILD --work build/peers/sherpa [--variant int8-dynamic] [--lookahead 6]

Writes WORK/<variant> for `bench/streaming.py --sherpa`, by our layout, which asks no gate.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from nemoport.package.layouts import sherpa_onnx


def lay_out(build: Path, variant: str, folder: Path, lookahead: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = json.loads((build / "config.json").read_text())
    config["encoder"]["default_lookahead"] = lookahead
    with tempfile.TemporaryDirectory() as staged:
        (Path(staged) / "config.json").write_text(json.dumps(config))
        for name in ("shared", variant):
            (Path(staged) / name).symlink_to((build / name).resolve())
        sherpa_onnx.lay_out(Path(staged), [variant], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: fp32")
    parser.add_argument("--lookahead", type=int, default=6)
    options = parser.parse_args()
    for variant in options.variants or ["fp32"]:
        lay_out(options.build, variant, options.work / variant, options.lookahead)


if __name__ == "__main__":
    main()
