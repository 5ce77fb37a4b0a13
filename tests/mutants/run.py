"""Runs the tests nearest to a module on its mutants, each in a fork, on a copy of the code in which one file is mutated.

A fork has imported what is not nemoport's, and those modules of nemoport that the mutant does not change,
so that a run of small tests takes less than a second.
"""

from __future__ import annotations

import importlib
import math
import os
import resource
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mutants.imports import unaffected

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
PRELOADED = "numpy pytest _pytest.assertion.rewrite pydantic jiwer soundfile soxr onnx onnxruntime hypothesis scipy.stats".split()
MEMORY_BYTES = 24 * 2**30  # of addresses, of which torch and onnxruntime take many
WAITS = 8
KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"


def prepare(torch: bool) -> None:
    """Copies the code, as it is installed, and imports what forks share."""
    shutil.rmtree(WORK / "links", ignore_errors=True)
    shutil.rmtree(TREE, ignore_errors=True)
    runpy.run_path(str(ROOT / ".ci" / "tree.py"))["link_tree"](WORK / "links")
    shutil.copytree(WORK / "links", TREE)
    for name in (*PRELOADED, *(["torch"] if torch else [])):
        importlib.import_module(name)
    os.environ |= {"PYTHONPATH": str(TREE), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # of packages that have nothing to do with these tests
    os.environ["NEMOPORT_TESTS"] = str(WORK / "made")  # see tests/conftest.py
    sys.path.insert(0, str(TREE))


def preload(module: str, tests: Sequence[Path]) -> None:
    """Imports, for the forks of this process, what the tests import and the module's mutants do not change."""
    for name in unaffected(TREE, place(module), tests):
        with suppress(ImportError):  # of another platform or extra
            importlib.import_module(name)


def in_fork(work: Callable[[], None]) -> int:
    """Does work in a fork, whose imports are gone with it. Returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        print(error, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


@contextmanager
def mutated(module: str, code: str) -> Iterator[None]:
    """The copy with another text of a module, such as nemoport/score."""
    path = place(module)
    original = path.read_text()
    for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        cached.unlink()
    path.write_text(code)
    try:
        yield
    finally:
        path.write_text(original)


def place(module: str) -> Path:
    """Where the copy has a module: a folder of a stage lies in nemoport's there."""
    return TREE / (f"{module}.py" if module.startswith("nemoport/") else f"nemoport/{module}.py")


def run_tests(tests: Sequence[str], limit_s: float, cached: bool = False) -> tuple[str, float]:
    """Returns (KILLED, TIMED_OUT or SURVIVED, seconds of processor). cached: byte code is written, for the runs that follow.

    limit_s is of processor time, so that a busy machine does not count as a kill; of the clock's, WAITS times as much.
    """
    begin = time.monotonic()
    child = os.fork()
    if not child:
        _test(tests, limit_s, cached)
    while time.monotonic() - begin < WAITS * limit_s:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            _end(child)  # what it may have started
            code = os.waitstatus_to_exitcode(status)
            outcome = SURVIVED if code == 0 else TIMED_OUT if code == -signal.SIGXCPU else KILLED
            return outcome, used.ru_utime + used.ru_stime
        time.sleep(0.02)
    _end(child)
    os.waitpid(child, 0)
    return TIMED_OUT, limit_s


def _end(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _test(tests: Sequence[str], limit_s: float, cached: bool) -> None:
    """Ends the process with pytest's exit code."""
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), resource.RLIM_INFINITY))
        sys.dont_write_bytecode = not cached
        os.environ["PYTHONDONTWRITEBYTECODE"] = "" if cached else "1"
        os.chdir(ROOT)
        log = os.open(WORK / "last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        base = WORK / "tmp"
        shutil.rmtree(base, ignore_errors=True)
        import pytest

        options = ["-x", "-q", "-o", "addopts=", "--import-mode=importlib", "-m", "not slow", "--tb=line", f"--basetemp={base}"]
        code = int(pytest.main([*options, "-p", "no:cacheprovider", *tests]))
    finally:
        sys.stdout.flush()
        os._exit(code)
