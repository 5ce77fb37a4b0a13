"""A full disk is told as one, by whatever it is met, and nothing half is left. The long form is bench/full_disk.py."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemoport.errors import CheckpointError, OutputError
from nemoport.files import new_folder, scratch_folder

ROOT = Path(__file__).resolve().parent.parent
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(tmp_path):
    """A disk of a MiB, where the machine lets us mount one."""
    if not mounts(tmp_path):
        pytest.skip("mounting is not allowed here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def mounts(folder):
    try:
        return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def fill(folder):
    with (folder / "file").open("wb") as stream, pytest.raises(OSError):
        for _ in range(3):
            stream.write(bytes(1 << 20))
            stream.flush()


@pytest.mark.parametrize("place", [lambda disk: new_folder(disk / "a"), scratch_folder], ids=["output", "TMPDIR"])
def test_a_library_that_reports_it_in_its_own_way(disk, place):
    """As C++ does: RuntimeError without a number."""
    with pytest.raises(OutputError, match="No space left"), place(disk) as work:
        fill(work)
        raise RuntimeError("PytorchStreamWriter failed writing file")
    assert list(disk.iterdir()) == []
    with pytest.raises(RuntimeError), place(disk):
        raise RuntimeError("something else, while there is room")
    assert list(disk.iterdir()) == []


def test_a_library_that_fills_the_folder_for_temporary_files(disk, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    build = tmp_path_factory.mktemp("build")
    with pytest.raises(OutputError, match=f"{disk} cannot be written"), new_folder(build / "a"):
        fill(disk)
        raise RuntimeError("PytorchStreamWriter failed writing file")
    with pytest.raises(CheckpointError, match="wrong weights"), new_folder(build / "a"):
        raise CheckpointError("It holds the wrong weights.")  # also while the disk is full
    assert list(build.iterdir()) == []


@pytest.mark.parametrize("place", [lambda folder: new_folder(folder / "a"), scratch_folder], ids=["output", "TMPDIR"])
def test_an_error_that_covers_it(tmp_path, place):
    with pytest.raises(OutputError, match="No space left"), place(tmp_path):
        try:
            raise FULL
        except OSError as error:
            raise CheckpointError("NeMo cannot restore it.", todo="restore and save it again") from error
    with pytest.raises(CheckpointError), place(tmp_path):
        raise CheckpointError("NeMo cannot restore it.")
    assert list(tmp_path.iterdir()) == []


def test_no_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="absent cannot be written"), scratch_folder():
        pytest.fail("must not be entered")


def test_a_gate_that_meets_it_is_no_verdict(monkeypatch):
    pytest.importorskip("onnx")
    from nemoport.validate import gates
    from nemoport.validate.gates import boundary

    def run(context):
        raise OutputError("The disk is full.")

    monkeypatch.setattr(boundary, "run", run)
    with pytest.raises(OutputError):
        gates.run_gate("boundary", None)


def stages(tmp_path, *arguments):
    if not mounts(tmp_path):
        pytest.skip("mounting is not allowed here")
    subprocess.run(["umount", tmp_path], check=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "bench" / "full_disk.py", "--work", tmp_path, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return [row.split(" | ") for row in run.stdout.splitlines() if row.startswith("| ")][1:]


def test_cheap_stages(reference_checkpoint, tmp_path):
    pytest.importorskip("torch")
    rows = stages(tmp_path, "--checkpoint", reference_checkpoint.path, "--stage", "export", "--stage", "shard")
    assert [int(row[2]) for row in rows] == [4, 4]  # with little room in TMPDIR they run


@pytest.mark.slow
def test_every_stage(tmp_path):
    pytest.importorskip("nemo")
    assert sum(int(row[2]) for row in stages(tmp_path)) > 40
