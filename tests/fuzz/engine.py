"""Runs cases of one target: each is made from a seed, a target's name and a number, so that a number repeats it anywhere."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.guard import Guard
from nemoport.errors import NemoportError
from nemoport.text import printable

LONGEST_MESSAGE = 20_000  # characters


@dataclass(frozen=True)
class Target:
    """A parser under test.

    seeds: valid inputs; mutate: makes a case of them; read: reads a case in an empty folder, raises NemoportError to refuse it
    and AssertionError where it accepts what it must not; weight: its part of all cases; cpu_seconds: that a case may take.
    """

    name: str
    seeds: Callable[[], Sequence[Any]]
    mutate: Callable[[random.Random, Sequence[Any]], Any]
    read: Callable[[Any, Path], None]
    weight: int
    cpu_seconds: float = 2.0


@dataclass
class Result:
    """cases: tried; accepted: of these; seconds: of the processor; findings: place of a fault -> (number of its first case,
    what)."""

    target: str
    cases: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: dict[str, tuple[int, str]] = field(default_factory=dict)


class Engine:
    """folder: an empty one of its own, which the cases are read in."""

    def __init__(self, folder: Path):
        self.folder = folder / "case"
        self.folder.mkdir()
        tempfile.tempdir = str(self.folder)
        self.guard = Guard(self.folder)

    def run(self, target: Target, numbers: Iterator[int], seed: int, started: Callable[[int], None] = lambda n: None) -> Result:
        """Reads the cases of these numbers. started: is called with each number, before its case."""
        result, seeds = Result(target.name), target.seeds()
        begin = time.process_time()
        for one in seeds:  # also imports what the target imports late
            self._prepare()
            try:
                target.read(one, self.folder)
            except Exception as error:
                result.findings["a valid input"] = (-1, f"{type(error).__name__}: {error}"[:300])
        for number in numbers:
            started(number)
            case = case_of(target, seeds, seed, number)
            accepted, fault = self.read(target, case)
            result.cases += 1
            result.accepted += accepted
            if fault:
                result.findings.setdefault(place_of(fault), (number, f"{type(fault).__name__}: {fault}"[:300]))
        result.seconds = time.process_time() - begin
        return result

    def read(self, target: Target, case: Any) -> tuple[bool, BaseException | None]:
        """Returns whether the case was accepted, and what was raised that must not be raised."""
        self._prepare()
        try:
            with self.guard.watched(target.cpu_seconds):
                target.read(case, self.folder)
            self.guard.check_beside()
        except NemoportError as error:
            return False, _unclear(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return False, error
        return True, None

    def _prepare(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def case_of(target: Target, seeds: Sequence[Any], seed: int, number: int) -> Any:
    """The case of a number."""
    return target.mutate(random.Random(f"{seed}/{target.name}/{number}"), seeds)


def place_of(fault: BaseException) -> str:
    """The class of a fault and the last line of nemoport's that it passed, by which findings are counted once."""
    frames = [
        f for f in traceback.extract_tb(fault.__traceback__) if "/tests/" not in f.filename and "site-packages" not in f.filename
    ]
    ours = [f for f in frames if "/lib/python" not in f.filename] or traceback.extract_tb(fault.__traceback__)[-1:]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else str(fault)[:40]
    return f"{type(fault).__name__} {where}"


def _unclear(error: NemoportError) -> AssertionError | None:
    """What is wrong with a refusal: it says nothing, too much, or controls a terminal."""
    text = str(error)
    if not error.what:
        return AssertionError("a refusal without a word")
    if len(text) > LONGEST_MESSAGE:
        return AssertionError(f"a refusal of {len(text)} characters")
    if text != printable(text):
        return AssertionError(f"a refusal with control characters: {text[:150]!r}").with_traceback(error.__traceback__)
    return None
