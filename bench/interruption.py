"""Ends every stage at random moments, and checks that nothing is lost by it.

    python bench/interruption.py --kills 200 [--terms 50] [--interrupts 50] [--seed 0] [--stage export ...] [--work FOLDER]

Each trial starts a stage, sends it SIGKILL, SIGTERM or SIGINT (Ctrl-C: to its whole group) at a random moment of its time, and
runs it again. It counts as lost
- if the signal leaves a file that is neither what an undisturbed run writes nor part of hidden unfinished work;
- if the exit code is another than the signal's, or SIGTERM or Ctrl-C leave unfinished work, or a process of the stage lives on;
- if the second run fails, differs in any file from an undisturbed run, or leaves unfinished work behind.

FOLDER keeps the outcome of each trial: a run that is stopped goes on there. The libraries are loaded once and each run is a fork
of this process, so that the moments fall into the work and not into imports. Exit code 1: something was lost. Not for Windows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoport.files import sha256_file

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio"
SECONDS = {"eval": 18.0, "calibration": 26.0}  # of audio: enough for the gates to judge, and for the caches to fill
SIGNALS = {"kill": (signal.SIGKILL, -signal.SIGKILL), "term": (signal.SIGTERM, 143), "int": (signal.SIGINT, 130)}
SECONDS_TO_END = 15.0  # that processes of a stage may outlive it
VOLATILE = ("report.md", "junit.xml")  # times are measured anew
PROGRESS = ("state.npz", "calibration.json")  # a calibration that is taken up again


@dataclass(frozen=True)
class Stage:
    """A run of the command line. kept: what of the finished build it starts from, as paths within the work folder."""

    arguments: tuple[str, ...]
    kept: tuple[str, ...] = ()


def stages() -> dict[str, Stage]:
    """Every stage by its name; the words in braces are filled in by `Trials`."""
    of_checkpoint = ("--checkpoint", "{checkpoint}", "--build", "{work}/build")
    corpora = ("--corpus", "{eval}", "--calibration", "{calibration}")
    fp32 = ("build/config.json", "build/shared", "build/fp32")
    found = {
        "export": Stage(("export", *of_checkpoint)),
        "export kv": Stage(("export", *of_checkpoint, "--caches", "kv"), fp32),
        "oracle": Stage(("oracle", *of_checkpoint, "--corpus", "{eval}"), fp32),
    }
    for name in ("fp16", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight", "int4-weight", "int4-mixed"):
        found[name] = Stage(("quantize", name, "--build", "{work}/build", "--calibration", "{calibration}"), fp32)
    variants = ("--variant", "fp32", "--variant", "int8-weight")
    judged = (*fp32, "build/int8-weight", "build/oracle")
    found["validate"] = Stage(("validate", *of_checkpoint, *corpora, *variants, "--jobs", "2"), judged)
    card = ("--license", "apache-2.0", "--language", "en", "--variant", "fp32")
    whole = (*judged, "build/results")
    found["package"] = Stage(("package", "--build", "{work}/build", "--dist", "{work}/dist/package", *card), whole)
    found["publish"] = Stage(("publish", "{work}/dist/package", "--repo", "someone/name", "--dry-run"), ("dist",))
    found["shard"] = Stage(("shard", "{work}/build/fp32/encoder_model.onnx", "{work}/shards", "--shard-bytes", "200K"), fp32)
    return found


class Trials:
    """The trials in one folder: work/ is what a stage writes, whole/ every file of undisturbed runs."""

    def __init__(self, root: Path, checkpoint: Path):
        self.root, self.work, self.whole, self.tmp = root, root / "work", root / "whole", root / "tmp"
        self.words = {"checkpoint": checkpoint, "work": self.work}
        for name, seconds in SECONDS.items():
            self.words[name] = manifest(root, name, seconds)
        self.expected: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.codes: dict[str, int] = {}

    def undisturbed(self, name: str, stage: Stage) -> None:
        """Runs a stage without a signal, notes what it writes and how long that takes, and keeps the files for later stages."""
        self._start(stage)
        begin = time.monotonic()
        self.codes[name] = self._wait(self._run(stage))
        self.seconds[name] = time.monotonic() - begin
        if self.codes[name] not in (0, 1):  # 1: random weights do not pass every gate
            sys.exit(f"{name} does not run: {(self.root / 'log').read_text()[-2000:]}")
        self.expected[name] = tree(self.work)
        shutil.copytree(self.work, self.whole, dirs_exist_ok=True)

    def trial(self, name: str, stage: Stage, kind: str, moment: float) -> tuple[bool, list[str]]:
        """Ends a stage after the share `moment` of its time, then runs it again. Returns whether it was ended, what was lost."""
        self._start(stage)
        number, signalled = SIGNALS[kind]
        process, lost = self._run(stage), []
        time.sleep(moment * self.seconds[name])
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if kind == "int" else os.kill)(process, number)
        code = self._wait(process)
        ended = code == signalled
        if code != self.codes[name] and not ended:
            lost.append(f"exit code {code}: {(self.root / 'log').read_text()[-500:]}")
        if alive := outliving(process):
            lost.append(f"processes live on: {alive}")
        found = tree(self.work)
        lost += [f"{path} is left" for path in sorted(found) if not self._is_fit(name, path, found[path])]
        if kind != "kill":
            lost += [f"{path} is left by {kind}" for path in unfinished(self.work, self.tmp)]
        if (code := self._wait(self._run(stage))) != self.codes[name]:
            lost.append(f"again: exit code {code}: {(self.root / 'log').read_text()[-500:]}")
        found, expected = tree(self.work), self.expected[name]
        differing = {path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)}
        lost += [f"again: {path} differs" for path in sorted(differing)]
        lost += [f"again: {path} is left" for path in unfinished(self.work, self.tmp)]
        return ended, lost

    def _is_fit(self, name: str, path: str, sha256: str) -> bool:
        """Whether a file may be there after a signal: as in the undisturbed run, or the state of what is taken up again."""
        resumed = path.endswith(PROGRESS) or "/results/" in path
        return self.expected[name].get(path) == sha256 or (resumed and path in self.expected[name])

    def _start(self, stage: Stage) -> None:
        for folder in (self.work, self.tmp):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for path in stage.kept:
            source, target = self.whole / path, self.work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    def _run(self, stage: Stage) -> int:
        """Starts a stage in a fork of this process and returns its process id."""
        sys.stdout.flush()
        if process := os.fork():
            return process
        code = 3
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log = os.open(self.root / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["TMPDIR"], tempfile.tempdir = str(self.tmp), None
            from nemoport.cli import main

            code = main([argument.format_map(self.words) for argument in stage.arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        except KeyboardInterrupt:  # outside of `main`
            code = 130
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    @staticmethod
    def _wait(process: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def manifest(root: Path, name: str, seconds: float) -> Path:
    """Writes a manifest of the first `seconds` of short utterances of a committed one, with absolute paths."""
    rows, total = [], 0.0
    for line in (AUDIO / f"{name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        if total < seconds and row["duration"] < 3.0:
            rows.append(json.dumps({**row, "audio_filepath": str(AUDIO / row["audio_filepath"])}))
            total += row["duration"]
    path = root / f"{name}.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


def tree(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file but unfinished work and locks; of gate results the verdicts only."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or ".partial/" in name or path.suffix == ".lock":
            continue
        if path.parent.name == "results":
            found[name] = "" if path.name in VOLATILE else verdicts(path)
        else:
            found[name] = sha256_file(path)
    return found


def verdicts(path: Path) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return " ".join(f"{row['gate']}/{row['case']}/{row['status']}" for row in rows)


def unfinished(*folders: Path) -> list[str]:
    """Folders of unfinished work, and everything in the folder for temporary files."""
    return sorted(str(path) for folder in folders for path in folder.rglob("*.partial"))


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
    rng = random.Random(seed)
    return [(names[i % len(names)], kind, rng.random()) for kind, count in counts.items() for i in range(count)]


def load(names: Sequence[str]) -> None:
    """Loads what the stages import, before the first fork; no thread may be started by it."""
    import nemoport.package.assemble
    import nemoport.package.hub
    import nemoport.quantize
    import nemoport.validate.run as run
    from nemoport.export import onnx_graphs  # noqa: F401

    nemoport.quantize.precisions()
    if {"oracle", "validate"} & {*names}:
        import nemo.collections.asr  # noqa: F401
    limits_of = run.limits_of
    run.limits_of = lambda variant: limits_of(variant).override("longform", minutes=1)  # ten take a minute of each trial


def main() -> int:
    parser = argparse.ArgumentParser(description="Ends every stage at random moments, and checks that nothing is lost by it.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--interrupts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", action="append", choices=list(stages()), help="repeat for several; default: all")
    parser.add_argument("--checkpoint", type=Path, help="default: a tiny one with random weights, made in FOLDER")
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = (options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        root.mkdir(parents=True, exist_ok=True)
        return run_trials(options, root)


def run_trials(options: argparse.Namespace, root: Path) -> int:
    """Runs the trials that FOLDER has no outcome of, prints a table, and returns the exit code."""
    names = options.stage or list(stages())
    load(names)
    checkpoint = options.checkpoint or root / "tiny.nemo"
    if not checkpoint.exists():
        make = [sys.executable, "-m", "nemoport.reference.random_checkpoint", "--preset", "tiny", "--out", str(checkpoint)]
        subprocess.run(make, check=True)  # not here: torch would start threads
    trials, chosen = Trials(root, checkpoint.absolute()), stages()
    planned = plan(names, {"kill": options.kills, "term": options.terms, "int": options.interrupts}, options.seed)
    outcomes = root / "outcomes.jsonl"
    done = [json.loads(line) for line in outcomes.read_text().splitlines()] if outcomes.exists() else []
    keyed = {(row["stage"], row["signal"], row["moment"]): row for row in done}
    if any(trial not in keyed for trial in planned):
        for name in names:
            trials.undisturbed(name, chosen[name])
            print(f"{name}: {trials.seconds[name]:.1f} s undisturbed", flush=True)
    for trial in planned:
        if trial in keyed:
            continue
        ended, lost = trials.trial(trial[0], chosen[trial[0]], *trial[1:])
        keyed[trial] = {"stage": trial[0], "signal": trial[1], "moment": trial[2], "ended": ended, "lost": lost}
        with outcomes.open("a") as stream:
            stream.write(json.dumps(keyed[trial]) + "\n")
        for line in lost:
            print(f"{trial[0]}, {trial[1]} at {trial[2]:.3f}: {line}", flush=True)
    print("| stage | trials | ended by " + " | by ".join(SIGNALS) + " | lost |\n|---|---|" + "---|" * (len(SIGNALS) + 1))
    for name in names:
        rows = [keyed[trial] for trial in planned if trial[0] == name]
        counts = [sum(row["signal"] == kind and row["ended"] for row in rows) for kind in SIGNALS]
        print(f"| {name} | {len(rows)} | {' | '.join(map(str, counts))} | {sum(bool(row['lost']) for row in rows)} |")
    return int(any(keyed[trial]["lost"] for trial in planned))


if __name__ == "__main__":
    sys.exit(main())
