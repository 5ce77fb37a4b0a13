"""Runs mutants of the modules in nearest.py and writes build/mutants/report.md and survivors.diff: `make mutants`.

Exit code 1: a mutant survives that survivors.toml does not list, of a module whose mutants all have to be killed, or the score
over all modules is below 85 %. 2: the tests of a module do not pass without a mutant.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants import run
from mutants.mutate import Mutants
from mutants.nearest import DECISIVE, NEAREST, TORCH

LISTED = Path(__file__).with_name("survivors.toml")
RESULTS = run.WORK / "results.jsonl"
LEAST_SCORE = 0.85
MUTATE = Path(__file__).with_name("mutate.py")  # which numbers the mutants


@dataclass(frozen=True)
class Result:
    """What became of one mutant. source, tests: digests; number: among the module's mutants."""

    module: str
    source: str
    tests: str
    number: int
    status: str
    scope: str
    was: str
    now: str
    diff: str


def main() -> int:
    options = argparse.ArgumentParser("mutants", description=__doc__)
    options.add_argument("--per-module", type=int, help="mutants of each module, drawn by the seed; 0: all; default 30")
    options.add_argument(
        "--module", action="append", choices=list(NEAREST), help="all of its mutants, or so many; repeat for several"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--minutes", type=float, default=float("inf"), help="a portion; what it has judged is not judged again")
    options.add_argument("--survivors", action="store_true", help="only what survived, anew: where tests were only added")
    options.add_argument("--report", action="store_true", help="write the report of what was judged, and judge nothing")
    chosen = options.parse_args()
    modules = chosen.module or list(NEAREST)
    most = (0 if chosen.module else 30) if chosen.per_module is None else chosen.per_module
    run.prepare(torch=any(module in TORCH for module in modules) and not chosen.report)
    end, results, broken = time.monotonic() + 60 * chosen.minutes, [], 0
    for module in modules:
        mutants = Mutants(run.place(module).read_text(), f"{module}.py")
        count = min(most or len(mutants), len(mutants))
        numbers = sorted(random.Random(f"{chosen.seed} {module}").sample(range(len(mutants)), count))
        if not chosen.report and time.monotonic() < end:
            known = _known(module, None if chosen.survivors else _digest(_files(module)))
            todo = [n for n in numbers if n not in known or (chosen.survivors and known[n].status == run.SURVIVED)]
            broken += bool(todo and run.in_fork(lambda m=module, ms=mutants, ns=todo: _judge(m, ms, ns, end)))
        known = _known(module)
        results.append((module, len(mutants), [known[n] for n in numbers if n in known]))
        print(_row(*results[-1]), flush=True)
    return _report(results) or (2 if broken else 0)


def _known(module: str, tests: str | None = None) -> dict[int, Result]:
    """What became of the module's mutants, by their numbers: of its source of now, and where it is given of these tests."""
    source = _digest([run.place(module), MUTATE])
    found = [Result(**json.loads(line)) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    return {r.number: r for r in found if r.module == module and r.source == source and tests in (None, r.tests)}


def _judge(module: str, mutants: Mutants, numbers: list[int], end: float) -> None:
    """Runs the tests on mutants until the time is up, and appends to RESULTS."""
    source, tests = _digest([run.place(module), MUTATE]), _digest(_files(module))
    run.preload(module, _files(module))
    limit_s = _limit_of(module)
    print(f"{module}: {len(numbers)} mutants, of which each may take {limit_s:.0f} s of processor", flush=True)
    for mutant, number in ((mutants[number], number) for number in numbers):
        if time.monotonic() > end:
            break
        with run.mutated(module, mutant.code):
            status, _ = run.run_tests(NEAREST[module], limit_s)
        result = Result(module, source, tests, number, status, mutant.scope, mutant.was, mutant.now, mutant.diff)
        with RESULTS.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def _limit_of(module: str) -> float:
    """Seconds of processor that a mutant may take. Runs the tests on the module as it is, which must pass."""
    status, _ = run.run_tests(NEAREST[module], 600, cached=True)
    status, seconds = run.run_tests(NEAREST[module], 600) if status == run.SURVIVED else (status, 0.0)
    if status != run.SURVIVED:
        sys.exit(f"the tests nearest to {module} do not pass without a mutant: {status}, see {run.WORK / 'last.log'}")
    return 10 + 4 * seconds


def _report(results: list[tuple[str, int, list[Result]]]) -> int:
    survived = [r for _, _, found in results for r in found if r.status == run.SURVIVED and not _is_listed(r)]
    head = "| module | mutants | judged | killed | timed out | survived | listed | score |\n|---|---|---|---|---|---|---|---|"
    every = ("all", sum(count for _, count, _ in results), [r for _, _, found in results for r in found])
    text = "\n".join([head, *(_row(*one) for one in results), _row(*every)])
    (run.WORK / "report.md").write_text(text + "\n")
    blocks = [f"# {r.module} {r.number}, {r.scope}\n{r.diff}\n" for r in survived]
    (run.WORK / "survivors.diff").write_text("\n".join(blocks))
    print(f"\n{text}\n\nReport: {run.WORK / 'report.md'}; {len(survived)} survivors: {run.WORK / 'survivors.diff'}")
    return int(_score(every[2]) < LEAST_SCORE or any(r.module in DECISIVE for r in survived))


def _row(module: str, count: int, found: list[Result]) -> str:
    killed, timed_out, survived = (sum(r.status == s for r in found) for s in (run.KILLED, run.TIMED_OUT, run.SURVIVED))
    listed = sum(r.status == run.SURVIVED and _is_listed(r) for r in found)
    cells = (module, count, len(found), killed, timed_out, survived, listed, f"{_score(found):.1%}" if found else "")
    return f"| {' | '.join(map(str, cells))} |"


def _score(found: list[Result]) -> float:
    """Share of the mutants that were killed or timed out, without those that survivors.toml lists; 1 of none."""
    counted = [r for r in found if r.status != run.SURVIVED or not _is_listed(r)]
    return sum(r.status != run.SURVIVED for r in counted) / len(counted) if counted else 1.0


def _is_listed(result: Result) -> bool:
    return (result.module, result.scope, result.was, result.now) in _LISTED


def _files(module: str) -> list[Path]:
    return [run.ROOT / name for name in NEAREST[module] if name.startswith("tests/")]


def _digest(paths: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


_RAW = tomllib.loads(LISTED.read_text()).get("survivor", []) if LISTED.is_file() else []
_LISTED = {(one["module"], one["scope"], one["was"], one["now"]): one["reason"] for one in _RAW}

if __name__ == "__main__":
    sys.exit(main())
