"""Runs the tests nearest to a module on its mutants, each in a fork, on a copy of the code in which one file is mutated.

A fork has imported what is not nemoport's, so that a run of small tests takes a second. Nothing of nemoport is imported before.
"""

from __future__ import annotations

import importlib
import os
import resource
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
PRELOADED = "numpy pytest _pytest.assertion.rewrite pydantic jiwer soundfile soxr onnx onnxruntime hypothesis scipy.stats".split()
MEMORY_BYTES = 24 * 2**30  # of addresses, of which torch and onnxruntime take many
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
    os.environ["NEMOPORT_TESTS"] = str(WORK / "made")  # see tests/conftest.py
    sys.path.insert(0, str(TREE))


@contextmanager
def mutated(module: str, code: str) -> Iterator[None]:
    """The copy with another text of a module, such as validate/score."""
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


def run_tests(tests: Sequence[str], timeout_s: float, cached: bool = False) -> tuple[str, float]:
    """Returns (KILLED, TIMED_OUT or SURVIVED, seconds). cached: byte code is written, for the runs that follow."""
    begin = time.monotonic()
    child = os.fork()
    if not child:
        _test(tests, cached)
    while time.monotonic() - begin < timeout_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _end(child)  # what it may have started
            seconds, code = time.monotonic() - begin, os.waitstatus_to_exitcode(status)
            return SURVIVED if code == 0 else KILLED, seconds
        time.sleep(0.02)
    _end(child)
    os.waitpid(child, 0)
    return TIMED_OUT, time.monotonic() - begin


def _end(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _test(tests: Sequence[str], cached: bool) -> None:
    """Ends the process with pytest's exit code."""
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
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
