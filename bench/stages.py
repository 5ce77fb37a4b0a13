"""Time, peak memory and disk of every stage on a checkpoint, each in a process of its own, beside what nemoport predicts of them;
the tables of bench/README.md and docs/reliability.md.

python bench/stages.py --checkpoint big.nemo --build /tmp/big --calibration M.jsonl [--random nemotron-en-0.6b]
python bench/stages.py ... --target openvino --precision fp32 --precision kv-int8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from nemoport.cache_layout import KV, NEMO, precision_of, variant_of
from nemoport.export.build import NEEDS
from nemoport.export.targets import load_target
from nemoport.quantize import precisions
from nemoport.resources import Needs
from nemoport.validate.nemo_process import NEEDS as NEEDS_OF_NEMO
from nemoport.variant import FP32

PRECISIONS = ("fp16", "smoothed", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight")
NEMOPORT = [sys.executable, "-m", "nemoport.cli"]
SAMPLE_SECONDS = 0.05


def run(name: str, command: list[str], build: Path, needs: Needs = Needs(), weights: int = 0) -> None:  # noqa: B008
    """Prints a row. Memory is the larger of the kernel's figure for the process (ru_maxrss) and of what all its processes had at
    once; held is what of it is in no file. Disk is the most that the build and the folder for temporary files grew by.

    needs, weights: what nemoport predicts by, and the bytes of the fp32 weights."""
    before, started = disk(build), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    memory = held = grown = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        resident, private = (sum(kind) for kind in zip(*map(sizes, tree(process.pid)), strict=True))
        memory, held, grown = max(memory, resident), max(held, private), max(grown, disk(build) - before)
        time.sleep(SAMPLE_SECONDS)
    _, status, usage = os.wait4(process.pid, 0)
    seconds, measured = time.perf_counter() - started, (max(memory, usage.ru_maxrss << 10), held, grown)
    predicted = [factor * weights for factor in (needs.memory, needs.held, needs.disk + needs.kept)]
    figures = zip(measured, predicted, strict=True)
    cells = [f"{found / 2**30:.1f}" + (f" ({told / 2**30:.1f})" if weights else "") for found, told in figures]
    outcome = "" if status == 0 else f" FAILED ({os.waitstatus_to_exitcode(status)})"
    print(f"| {name}{outcome} | {seconds:.0f} | {' | '.join(cells)} |", flush=True)
    if status:
        sys.exit(1)


def tree(process: int) -> list[int]:
    """A process and all that it started, by their ids. Linux; elsewhere the process alone.

    A child with the command line of its parent is a fork on its way to another program, and has its parent's memory.
    """
    found = [process]
    for one in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                children = map(int, (thread / "children").read_text().split())
                found += [child for child in children if command_line(child) != command_line(one)]
    return found


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def sizes(process: int) -> tuple[int, int]:
    """Bytes of a process in memory, and those of them that are in no file."""
    lines = {}
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    resident, *private = (int(lines.get(name, "0").split()[0]) << 10 for name in ("VmRSS", "RssAnon", "RssShmem"))
    return resident, sum(private)


def disk(build: Path) -> int:
    """Bytes in the build and in the folder for temporary files, which should serve nothing else meanwhile."""
    total = 0
    for folder in (build, Path(tempfile.gettempdir())):
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):  # removed meanwhile
                    total += os.lstat(os.path.join(parent, name)).st_size
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--audio", help="a clip to transcribe with each variant")
    parser.add_argument("--corpus", help="record NeMo's runs over it too")
    parser.add_argument("--random", metavar="PRESET", help="write CHECKPOINT first, randomly initialised")
    parser.add_argument("--caches", choices=(NEMO, KV), default=NEMO)
    parser.add_argument("--profile", help="of the export, such as 1120ms/13; a calibration then streams at that chunk alone")
    parser.add_argument("--target", help="convert for another runtime instead, of which --precision names some")
    parser.add_argument("--precision", action="append", dest="precisions", help="repeat for several; default: those of the demo")
    options = parser.parse_args()
    build = options.build
    print(
        "GiB at the peak, predicted in brackets.\n\n| stage | seconds | memory | held | disk |\n|---|---|---|---|---|", flush=True
    )
    if options.random and not options.checkpoint.exists():
        make = ["-m", "nemoport.reference.random_checkpoint", "--preset", options.random, "--out", str(options.checkpoint)]
        run(f"random checkpoint {options.random}", [sys.executable, *make], build)
    to, of = ["--build", str(build)], ["--checkpoint", str(options.checkpoint)]
    of += ["--profile", options.profile] if options.profile else []
    size = options.checkpoint.stat().st_size
    export, calibration = [*NEMOPORT, "export", *of, *to, "--caches", options.caches], ["--calibration", str(options.calibration)]
    fp32 = variant_of(options.caches, FP32)
    if options.target:
        made = [f"{options.target}-{name}" for name in options.precisions or [FP32]]
        for variant in made:
            chosen = ["--target", options.target, "--precision", variant.removeprefix(f"{options.target}-")]
            run(variant, [*export, *chosen, *calibration], build, load_target(options.target).needs, size)
    else:
        made = [variant_of(options.caches, name) for name in options.precisions or PRECISIONS]
        run(f"export {fp32}", export, build, NEEDS, size)
        weights = sum(file.stat().st_size for file in (build / fp32).iterdir())
        for variant in made:
            needs = precisions()[precision_of(variant)].needs
            run(variant, [*NEMOPORT, "quantize", variant, *to, *calibration], build, needs, weights)
        made.insert(0, fp32)
    if options.corpus:
        run("oracle", [*NEMOPORT, "oracle", *of, *to, "--corpus", options.corpus], build, NEEDS_OF_NEMO["record"], size)
    for variant in made if options.audio else ():
        run(f"transcribe, {variant}", [*NEMOPORT, "transcribe", str(build / variant), options.audio], build)
    total = sum(p.stat().st_size for p in build.rglob("*") if p.is_file())
    print(f"\nDisk: {total / 2**30:.1f} GiB in {build}, {size / 2**30:.1f} GiB checkpoint")


if __name__ == "__main__":
    main()
