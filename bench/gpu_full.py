"""Makes the weights that gpu_pack.py left out: python gpu_full.py FOLDER. Random, of the size and type that they had."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

FLOAT, HALF = 1, 10  # onnx.TensorProto; all others are bytes
SCALE = 0.02


def fill(folder: Path) -> None:
    random = np.random.default_rng(0)
    for path in sorted(folder.glob("*/*.hollow.json")):
        name = path.name.removesuffix(".hollow.json")
        hole, small = json.loads(path.read_text()), path.with_name(f"{name}.small")
        with path.with_name(f"{name}.data").open("wb") as data, small.open("rb") as kept:
            data.truncate(hole["bytes"])
            for offset, length in hole["kept"]:
                data.seek(offset)
                data.write(kept.read(length))
            for offset, length, kind in hole["made"]:
                data.seek(offset)
                if kind in (FLOAT, HALF):
                    values = random.standard_normal(length // (4 if kind == FLOAT else 2), np.float32) * np.float32(SCALE)
                    data.write(values.astype(np.float32 if kind == FLOAT else np.float16).tobytes())
                else:
                    data.write(random.integers(-64, 64, length, np.int8).tobytes())


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
