"""Runs of single stages that are ended half way, and what must be there afterwards: for interruption.py and full_disk.py.

The libraries are loaded once, and each run is a fork of this process, so that its time is that of the work. FOLDER keeps what
undisturbed runs gave: a change of the code needs a new one. Not for Windows.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoport.files import sha256_file

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio"
SECONDS = {"eval": 18.0, "calibration": 26.0}  # of audio: enough for the gates to judge, and for the caches to fill
VOLATILE = ("report.md", "report.html", "junit.xml")  # times are measured anew
PROGRESS = ("/calibration/", "/sensitivity/", "/results/")  # taken up again


@dataclass(frozen=True)
class Stage:
    """A run of the command line. kept: what of the finished build it starts from, as paths within the work folder; every: a long
    stage has its turn in every so many rounds; once: it refuses to run where it has run."""

    arguments: tuple[str, ...]
    kept: tuple[str, ...] = ()
    every: int = 1
    once: bool = False


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
        found[name] = Stage(
            ("quantize", name, "--build", "{work}/build", "--calibration", "{calibration}"), fp32, 1 + (name == "int4-mixed")
        )
    variants = ("--variant", "fp32", "--variant", "int8-weight")
    judged = (*fp32, "build/int8-weight", "build/oracle")
    validate = ("validate", *of_checkpoint, *corpora, *variants, "--jobs", "2")
    found["validate, nothing recorded"] = Stage(validate, judged, every=6)
    found["validate"] = Stage(validate, (*judged, "build/conditions", "build/longform"), every=3)
    card = ("--license", "apache-2.0", "--language", "en", "--variant", "fp32")
    whole = (*judged, "build/results")
    found["package"] = Stage(("package", "--build", "{work}/build", "--dist", "{work}/dist/package", *card), whole)
    found["publish"] = Stage(("publish", "{work}/dist/package", "--repo", "someone/name", "--dry-run"), ("dist",))
    graph = "{work}/build/fp32/encoder_model.onnx"
    found["shard"] = Stage(("shard", graph, "{work}/shards", "--shard-bytes", "1M"), fp32, once=True)
    return found


class Trials:
    """The trials in one folder: work/ is what a stage writes, whole/ every file of undisturbed runs."""

    def __init__(self, root: Path, checkpoint: Path | None):
        checkpoint = (checkpoint or root / "tiny.nemo").absolute()
        if not checkpoint.exists():
            make = [sys.executable, "-m", "nemoport.reference.random_checkpoint", "--preset", "tiny", "--out", str(checkpoint)]
            subprocess.run(make, check=True)  # not here: torch would start threads
        self.root, self.work, self.whole, self.tmp = root, root / "work", root / "whole", root / "tmp"
        self.words = {"checkpoint": checkpoint, "work": self.work}
        for name, seconds in SECONDS.items():
            self.words[name] = manifest(root, name, seconds)
        self.expected: dict[str, dict[str, str]] = {}
        self.bytes: dict[str, dict[str, int]] = {}
        self.seconds: dict[str, float] = {}
        self.codes: dict[str, int] = {}
        self.before: set[str] = set()

    def run_undisturbed(self, names: Sequence[str]) -> None:
        """Loads what the stages import, and runs each once: notes what it writes and its time, keeps the files for later ones."""
        load(names)
        kept = self.root / "undisturbed.json"
        if kept.exists():
            self.expected, self.bytes, self.seconds, self.codes = json.loads(kept.read_text())
        for name in names:
            if name not in self.codes:
                self._undisturbed(name, stages()[name])
                print(f"{name}: {self.seconds[name]:.1f} s undisturbed", flush=True)
                kept.write_text(json.dumps([self.expected, self.bytes, self.seconds, self.codes]))

    def _undisturbed(self, name: str, stage: Stage) -> None:
        begun = self.root / "starts" / name
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
        for path in stage.kept:
            source, target = self.whole / path, begun / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        self.start(name)
        begin = time.monotonic()
        self.codes[name] = self.wait(self.run(stage))
        self.seconds[name] = time.monotonic() - begin
        if self.codes[name] not in (0, 1):  # 1: random weights do not pass every gate
            sys.exit(f"{name} does not run: {self.log()[-2000:]}")
        self.expected[name] = tree(self.work)
        self.bytes[name] = {path: (self.work / path).stat().st_size for path in self.expected[name]}
        shutil.copytree(self.work, self.whole, dirs_exist_ok=True)

    def again(self, name: str, stage: Stage) -> list[str]:
        """Runs a stage where another run of it was ended. Returns what differs from an undisturbed run."""
        lost = []
        refused = stage.once and tree(self.work) == self.expected[name]
        if (code := self.wait(self.run(stage))) != (2 if refused else self.codes[name]):
            lost.append(f"again: exit code {code}: {self.log()[-500:]}")
        found, expected = tree(self.work), self.expected[name]
        differing = {path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)}
        lost += [f"again: {path} differs" for path in sorted(differing)]
        return lost + [f"again: {path} is left" for path in unfinished(self.work, self.tmp)]

    def unfit(self, name: str) -> list[str]:
        """Files that an ended run may not leave, neither whole nor the state of what is taken up again, or has removed."""
        expected, found = self.expected[name], tree(self.work)
        resumed = {path for path in expected if any(part in path for part in PROGRESS)}
        left = [f"{path} is left" for path in found if found[path] != expected.get(path) and path not in resumed]
        return left + [f"{path} was removed" for path in sorted(self.before - found.keys())]

    def log(self) -> str:
        """What the last run printed."""
        return (self.root / "log").read_text()

    def start(self, name: str) -> None:
        """Lays out what a stage starts from: as its undisturbed run found it, because that one adds to what later stages keep."""
        for folder in (self.work, self.tmp):
            shutil.rmtree(folder, ignore_errors=True)  # stays where a disk is mounted there
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.root / "starts" / name, self.work, dirs_exist_ok=True)
        self.before = {*tree(self.work)}

    def run(self, stage: Stage) -> int:
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
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    @staticmethod
    def wait(process: int) -> int:
        """Returns the exit code, negative for a signal."""
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
        if path.parent.name == "results" and path.name in VOLATILE:
            found[name] = ""
        elif path.parent.name == "results" and path.suffix == ".jsonl":
            found[name] = verdicts(path)
        else:
            found[name] = sha256_file(path)
    return found


def verdicts(path: Path) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return " ".join(f"{row['gate']}/{row['case']}/{row['status']}" for row in rows)


def unfinished(*folders: Path) -> list[str]:
    """Folders of unfinished work, and everything in the folder for temporary files."""
    return sorted(str(path) for folder in folders for path in folder.rglob("*.partial"))


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


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that every use of the trials has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--stage", action="append", choices=list(stages()), help="repeat for several; default: all")
    parser.add_argument("--checkpoint", type=Path, help="default: a tiny one with random weights, made in FOLDER")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="default: a temporary folder")
    return parser


@contextlib.contextmanager
def work_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Yields the folder of the trials, a temporary one where none is named."""
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        yield options.work.absolute()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
