"""Time and peak memory of every stage on a checkpoint, each in a process of its own; the table of bench/README.md.

python bench/stages.py --checkpoint big.nemo --build /tmp/big --calibration M.jsonl [--random nemotron-en-0.6b]
python bench/stages.py ... --target openvino --precision fp32 --precision kv-int8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from nemoport.cache_layout import KV, NEMO, variant_of
from nemoport.variant import FP32

PRECISIONS = ("fp16", "smoothed", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight")
NEMOPORT = [sys.executable, "-m", "nemoport.cli"]


def run(name: str, command: list[str]) -> None:
    """Peak memory is the kernel's figure for the process (ru_maxrss, KiB on Linux), mapped files included."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    outcome = "" if status == 0 else f" FAILED ({os.waitstatus_to_exitcode(status)})"
    print(f"| {name}{outcome} | {seconds:.0f} | {usage.ru_maxrss / 2**20:.1f} |", flush=True)
    if status:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--audio", help="a clip to transcribe with each variant")
    parser.add_argument("--random", metavar="PRESET", help="write CHECKPOINT first, randomly initialised")
    parser.add_argument("--caches", choices=(NEMO, KV), default=NEMO)
    parser.add_argument("--target", help="convert for another runtime instead, of which --precision names some")
    parser.add_argument("--precision", action="append", dest="precisions", help="repeat for several; default: those of the demo")
    options = parser.parse_args()
    build = ["--build", str(options.build)]
    print("| stage | seconds | peak memory, GiB |\n|---|---|---|", flush=True)
    if options.random and not options.checkpoint.exists():
        make = ["-m", "nemoport.reference.random_checkpoint", "--preset", options.random, "--out", str(options.checkpoint)]
        run(f"random checkpoint {options.random}", [sys.executable, *make])
    export = [*NEMOPORT, "export", "--checkpoint", str(options.checkpoint), *build, "--caches", options.caches]
    calibration = ["--calibration", str(options.calibration)]
    if options.target:
        made = [f"{options.target}-{name}" for name in options.precisions or [FP32]]
        for variant in made:
            precision = variant.removeprefix(f"{options.target}-")
            run(variant, [*export, "--target", options.target, "--precision", precision, *calibration])
    else:
        made = [variant_of(options.caches, name) for name in options.precisions or PRECISIONS]
        run(f"export {variant_of(options.caches, FP32)}", export)
        for variant in made:
            run(variant, [*NEMOPORT, "quantize", variant, *build, *calibration])
        made.insert(0, variant_of(options.caches, FP32))
    for variant in made if options.audio else ():
        run(f"transcribe, {variant}", [*NEMOPORT, "transcribe", str(options.build / variant), options.audio])
    total = sum(p.stat().st_size for p in options.build.rglob("*") if p.is_file())
    print(f"\nDisk: {total / 2**30:.1f} GiB in {options.build}, {options.checkpoint.stat().st_size / 2**30:.1f} GiB checkpoint")


if __name__ == "__main__":
    main()
