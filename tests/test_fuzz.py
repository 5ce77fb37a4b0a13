"""A minute of fuzzing, the inputs that once got through, and that the fuzzer finds what it is to find."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")  # Windows has none
pytest.importorskip("torch")
from fuzz import regressions  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

from nemoport.errors import NemoportError  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits of a case are those of Linux")
TESTS = Path(__file__).parent
CASES = 20_000
TARGET = {target.name: target for target in TARGETS}


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=600)


def test_no_case_gets_through():
    """The same cases in every run. `make fuzz` reads a million."""
    done = run("-m", "fuzz", "--cases", str(CASES), "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    assert [row[0] for row in rows] == [*TARGET]
    assert sum(int(row[1]) for row in rows) > 0.99 * CASES
    assert all(0.0 < float(row[3].rstrip("%")) < 99 for row in rows), "a target that refuses or accepts all"


@pytest.mark.parametrize("name", TARGET)
def test_what_once_got_through(name, tmp_path):
    target = TARGET[name]
    for number, case in enumerate(regressions.refused().get(name, ())):
        (folder := tmp_path / f"refused{number}").mkdir()
        with pytest.raises(NemoportError):
            target.read(case, folder)
    for number, case in enumerate([*target.seeds(), *regressions.accepted().get(name, ())]):
        (folder := tmp_path / f"accepted{number}").mkdir()
        target.read(case, folder)


# What a parser must not do -> what the fuzzer says of it. HERE is the folder of the case.
FAULTS = {
    "open(HERE.parent / 'x', 'w')": "wrote",
    "open('/etc/hostname')": "read",
    "os.rename(HERE / 'a', HERE.parent / 'b')": "os.rename",
    "shutil.rmtree(HERE.parent)": "shutil.rmtree",
    "os.symlink('/etc', HERE.parent / 'x')": "os.symlink",
    "subprocess.run(['true'])": "subprocess.Popen",
    "os.system('true')": "os.system",
    "socket.create_connection(('127.0.0.1', 9))": "socket.",
    "pickle.loads(pickle.dumps(os.getcwd))": "pickle.find_class",
    "ctypes.CDLL(None).mkdir(str(HERE.parent / 'x').encode(), 0o700)": "beside the case's folder",
    "exec('while True: pass')": "Hang",
    "b'x' * (500 << 20)": "the case took",
    "bytearray(8 << 30)": "MemoryError",
    "sys.exit(0)": "SystemExit",
    "{}['x']": "KeyError",
    "fail('')": "without a word",
}
SCRIPT = """
import ctypes, os, pickle, shutil, socket, subprocess, sys, tempfile
from pathlib import Path
from fuzz.engine import Engine, Target
from nemoport.errors import NemoportError
def fail(what, **more):
    raise NemoportError(what, **more)
def read(case, HERE):
    (HERE / 'a').touch()
    try:
        eval(case)
    except Exception:
        if not case.startswith(('{}', 'fail', 'bytearray(8')):
            return  # as a parser that catches all
        raise
with tempfile.TemporaryDirectory() as folder:
    engine, target = Engine(Path(folder)), Target('x', tuple, None, read, 1)
    for case in sys.argv[1:]:
        accepted, fault = engine.read(target, case)
        print(repr(fault))
"""


def test_the_fuzzer_finds_what_it_is_to_find():
    """Also where the parser catches the exception by which the guard stops it."""
    done = run("-c", SCRIPT, *FAULTS)
    found = done.stdout.splitlines()
    assert len(found) == len(FAULTS), done.stderr
    for (case, word), line in zip(FAULTS.items(), found, strict=True):
        assert word in line, f"{case}: {line}"
