"""Hashes of every graph: shows that a change of the code leaves the bytes of what is built as they were.

    python bench/hashes.py --out /tmp/after --against /tmp/before [--checkpoints streaming-en] [--code OTHER_TREE]

Builds every ONNX variant of the reference checkpoints, and those of TARGETS, by the command line, on one thread, into OUT, and
writes OUT/<checkpoint>.json: file -> sha256, and the digests of recipes. AGAINST: such a folder of another run on the same
machine; what differs is printed, and the exit code is 1. CODE: a folder whose `nemoport` package is run in the place of the
installed one, such as the `build/tree` of another working copy. Takes 25 minutes of processor time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REFERENCE = Path(__file__).resolve().parent.parent / "reference"
SPEECH = {"streaming-en": "calibration", "offline-tdt": "calibration-tdt", "streaming-multilingual": "calibration-multi"}
PRECISIONS = (
    "fp16", "smoothed", "int8-dynamic", "int8-dynamic-per-tensor", "int8-static", "int8-static-cold", "int8-smoothquant",
    "int8-smoothquant-signed", "int8-weight", "int4-weight", "int4-mixed",
)  # fmt: skip
TARGETS = {
    "openvino": ("fp32", "fp16", "int8", "kv-fp32", "kv-int8", "kv-int8-dynamic", "stateful-fp32", "stateful-int8"),
    "coreai": ("fp32", "fp16"),
    "coreml": ("fp32", "fp16", "int8", "int4"),
}


def commands(name: str, build: Path, targets: list[str]) -> Iterator[list[str]]:
    """The calls of the command line that make everything of a checkpoint."""
    checkpoint, audio = REFERENCE / "checkpoints" / f"{name}.nemo", REFERENCE / "audio" / f"{SPEECH[name]}.jsonl"
    export = ["export", "--checkpoint", str(checkpoint), "--build", str(build)]
    for prefix in ("",) if name == "offline-tdt" else ("", "kv-"):
        yield [*export, "--contract", "kv" if prefix else "nemo"]  # the name that older code knows too
        yield from (["quantize", f"{prefix}{one}", "--build", str(build), "--calibration", str(audio)] for one in PRECISIONS)
    if name != "offline-tdt":
        for target in targets:
            yield from ([*export, "--target", target, "--precision", precision] for precision in TARGETS[target])


def hashes(build: Path) -> dict[str, str]:
    """Files of every variant and of shared/ -> sha256, and the digest of each recipe."""
    found = {f"shared/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in (build / "shared").iterdir()}
    for path in build.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        found[f"{path.parent.name} recipe"] = manifest["recipe_digest"]
        found |= {f"{path.parent.name}/{entry['path']}": entry["sha256"] for entry in manifest["files"].values()}
    return dict(sorted(found.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--checkpoints", nargs="+", default=list(SPEECH), choices=list(SPEECH))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--code", type=Path)
    options = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"PYTHONPATH": str(options.code)} if options.code else {})}
    compared = differing = 0
    for name in options.checkpoints:
        for command in commands(name, options.out / name, options.targets):
            print(name, *command[:2], command[-1], flush=True)
            subprocess.run(
                [sys.executable, "-P", "-m", "nemoport.cli", *command], env=environment, check=True, capture_output=True
            )
        found = hashes(options.out / name)
        (options.out / f"{name}.json").write_text(json.dumps(found, indent=1))
        if options.against:
            before = json.loads((options.against / f"{name}.json").read_text())
            for key, value in found.items():
                compared += 1
                if before.get(key) != value:
                    differing += 1
                    print(f"{name} {key}: {before.get(key, 'not there')[:16]} before, {value[:16]} now")
    if options.against:
        print(f"{compared} compared, {differing} differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
