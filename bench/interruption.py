"""Ends every stage at random moments, and checks that nothing is lost by it.

    python bench/interruption.py --kills 200 [--terms 50] [--interrupts 50] [--seed 0] [--stage export ...] [--work FOLDER]

Each trial starts a stage, sends it SIGKILL, SIGTERM or SIGINT (Ctrl-C: to its whole group) at a random moment of its time, and
runs it again. It counts as lost
- if the signal leaves a file that is neither what an undisturbed run writes nor part of hidden unfinished work;
- if the exit code is another than the signal's, or SIGTERM or Ctrl-C leave unfinished work, or a process of the stage lives on;
- if the second run fails, differs in any file from an undisturbed run, or leaves unfinished work behind.

FOLDER keeps the outcome of each trial: a run that is stopped goes on there. Exit code 1: something was lost. Not for Windows.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trials import Trials, arguments, stages, unfinished, work_folder

SIGNALS = {"kill": (signal.SIGKILL, -signal.SIGKILL), "term": (signal.SIGTERM, 143), "int": (signal.SIGINT, 130)}
SECONDS_TO_END = 15.0  # that processes of a stage may outlive it


def trial(trials: Trials, name: str, kind: str, moment: float) -> tuple[bool, list[str]]:
    """Ends a stage after the share `moment` of its time, then runs it again. Returns whether it was ended, what was lost."""
    stage, (number, signalled) = stages()[name], SIGNALS[kind]
    trials.start(name)
    process, lost = trials.run(stage), []
    time.sleep(moment * trials.seconds[name])
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if kind == "int" else os.kill)(process, number)
    code = trials.wait(process)
    ended = code in (signalled, -number)  # the latter before the command line has begun
    if code != trials.codes[name] and not ended:
        lost.append(f"exit code {code}: {trials.log()[-500:]}")
    if alive := outliving(process):
        lost.append(f"processes live on: {alive}")
    lost += trials.unfit(name)
    if kind != "kill":
        lost += [f"{path} is left by {kind}" for path in unfinished(trials.work, trials.tmp)]
    return ended, lost + trials.again(name, stage)


def outliving(session: int) -> list[str]:
    """Processes of a session that still live after SECONDS_TO_END."""
    until = time.monotonic() + SECONDS_TO_END
    while True:
        alive = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, of_session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(of_session) == session and state != "Z":
                    alive.append((stat.parent / "cmdline").read_text().replace("\0", " ")[:200])
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(0.05)


def plan(names: Sequence[str], counts: Mapping[str, int], seed: int) -> list[tuple[str, str, float]]:
    """(stage, signal, share of the stage's time) of every trial: the stages in turn, at moments by the seed."""
    rng, known = random.Random(seed), stages()
    turns = [name for number in range(12) for name in names if number % known[name].every == 0]
    return [(turns[i % len(turns)], kind, rng.random()) for kind, count in counts.items() for i in range(count)]


def main() -> int:
    parser = arguments("Ends every stage at random moments, and checks that nothing is lost by it.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--interrupts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with work_folder(options) as root:
        trials = Trials(root, options.checkpoint)
        names = options.stage or list(stages())
        planned = plan(names, {"kill": options.kills, "term": options.terms, "int": options.interrupts}, options.seed)
        outcomes = root / "outcomes.jsonl"
        rows = [json.loads(line) for line in outcomes.read_text().splitlines()] if outcomes.exists() else []
        known = {(row["stage"], row["signal"], row["moment"]) for row in rows}
        missing = [one for one in planned if one not in known]
        if missing:
            trials.run_undisturbed(names)
        for name, kind, moment in missing:
            ended, lost = trial(trials, name, kind, moment)
            rows.append({"stage": name, "signal": kind, "moment": moment, "ended": ended, "lost": lost})
            with outcomes.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            for line in lost:
                print(f"{name}, {kind} at {moment:.3f}: {line}", flush=True)
    print("| stage | trials | ended by " + " | by ".join(SIGNALS) + " | lost |\n|---|---|" + "---|" * (len(SIGNALS) + 1))
    for name in names:
        of_stage = [row for row in rows if row["stage"] == name]
        counts = [sum(row["signal"] == kind and row["ended"] for row in of_stage) for kind in SIGNALS]
        print(f"| {name} | {len(of_stage)} | {' | '.join(map(str, counts))} | {sum(bool(row['lost']) for row in of_stage)} |")
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
