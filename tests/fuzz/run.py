"""Runs targets in processes and watches each: one that dies or stands still is a finding."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzz.engine import Engine, Result, Target, case_of
from fuzz.targets import TARGETS

STILL_SECONDS = 300.0  # without a next case: a process that does not even heed the guard's timer
BATCH = 20_000  # cases of a process
Part = tuple[str, int, int]  # a target, the number of its first case and that behind its last


def run(targets: Sequence[Target], cases: int, seed: int, jobs: int, only: int | None = None) -> list[Result]:
    """Shares the cases among the targets by their weight. only: the number of a single case."""
    if only is not None:
        return [_one(targets[0], only, seed)]
    total = sum(target.weight for target in targets)
    groups: list[list[Part]] = [[]]
    for target in targets:
        count = max(1, cases * target.weight // total)
        for start in range(0, count, BATCH):
            if sum(stop - first for _, first, stop in groups[-1]) >= BATCH:
                groups.append([])
            groups[-1].append((target.name, start, min(start + BATCH, count)))
    with ThreadPoolExecutor(jobs) as pool:
        done = []
        for number, results in enumerate(pool.map(lambda group: _in_process(group, seed), groups), 1):
            done += results
            print(f"{number} of {len(groups)}: {sum(one.cases for one in done)} cases", file=sys.stderr, flush=True)
    return [_sum(target.name, [one for one in done if one.target == target.name]) for target in targets]


def _sum(name: str, parts: list[Result]) -> Result:
    total = Result(name)
    for part in parts:
        total.cases += part.cases
        total.accepted += part.accepted
        total.seconds += part.seconds
        for place, what in part.findings.items():
            total.findings.setdefault(place, what)
    return total


def _in_process(parts: list[Part], seed: int) -> list[Result]:
    context = multiprocessing.get_context("spawn")
    number = context.Value("q", -1)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(parts, seed, number, sender))
    process.start()
    sender.close()
    results: list[Result] = []
    seen, since, still = -1, time.monotonic(), False
    while len(results) < len(parts) and not still:
        try:
            if receiver.poll(0.5):
                results.append(receiver.recv())
        except EOFError:
            break
        if number.value != seen:
            seen, since = number.value, time.monotonic()
        still = time.monotonic() - since > STILL_SECONDS
    if still:
        process.kill()
    process.join(STILL_SECONDS)
    if len(results) < len(parts):
        name, start, _ = parts[len(results)]
        what = "it stood still" if still else f"its process ended with {process.exitcode}"
        results.append(Result(name, max(0, number.value - start + 1), findings={f"case {number.value}": (number.value, what)}))
    return results


def _work(parts: list[Part], seed: int, number: Any, sender: Any) -> None:
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None, prefix="fuzz-") as folder:

        def started(case: int) -> None:
            number.value = case

        os.chdir(folder)
        engine = Engine(Path(folder))
        for name, start, stop in parts:
            target = next(target for target in TARGETS if target.name == name)
            sender.send(engine.run(target, iter(range(start, stop)), seed, started))


def _one(target: Target, number: int, seed: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        engine, case = Engine(Path(folder)), case_of(target, target.seeds(), seed, number)
        print(repr(case)[:5000])
        accepted, fault = engine.read(target, case)
        if fault:
            traceback.print_exception(fault)
        return Result(target.name, 1, accepted, findings={"this": (number, str(fault))} if fault else {})
