"""Time and peak memory of every stage on a checkpoint, each in a process of its own; the table of bench/README.md.

    python bench/stages.py --checkpoint big.nemo --build /tmp/big --calibration M.jsonl [--random nemotron-en-0.6b]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

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
    options = parser.parse_args()
    build = ["--build", str(options.build)]
    print("| stage | seconds | peak memory, GiB |\n|---|---|---|", flush=True)
    if options.random and not options.checkpoint.exists():
        make = ["-m", "nemoport.reference.random", "--preset", options.random, "--out", str(options.checkpoint)]
        run(f"random checkpoint {options.random}", [sys.executable, *make])
    run("export fp32", [*NEMOPORT, "export", "--checkpoint", str(options.checkpoint), *build])
    for variant in ("fp16", "int8-dynamic", "int8-static"):
        calibration = ["--calibration", str(options.calibration)] if variant != "int8-dynamic" else []
        run(variant, [*NEMOPORT, "quantize", variant, *build, *calibration])
    for variant in ("fp32", "fp16", "int8-dynamic", "int8-static") if options.audio else ():
        run(f"transcribe, {variant}", [*NEMOPORT, "transcribe", str(options.build / variant), options.audio])
    total = sum(p.stat().st_size for p in options.build.rglob("*") if p.is_file())
    print(f"\nDisk: {total / 2**30:.1f} GiB in {options.build}, {options.checkpoint.stat().st_size / 2**30:.1f} GiB checkpoint")


if __name__ == "__main__":
    main()
