"""NeMo's own process: what it may not do, what its caller makes of its end, and what it is not given."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nemoport.errors import ArtifactError, CheckpointError, UsageError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.progress import silent
from nemoport.validate import nemo_process as process_module
from nemoport.validate import oracle as recording
from nemoport.validate.confine import FILES, NETWORK
from nemoport.validate.nemo_process import in_nemo

ATTEMPTS = """
import json, os, socket, subprocess, sys
from pathlib import Path
from nemoport.validate.confine import confine
folder, outside, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
held = confine(folder)
def attempt(act):
    try:
        act()
        return "done"
    except (OSError, subprocess.CalledProcessError) as error:
        return type(error).__name__
def connect():
    # In a program that no audit hook watches.
    program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    subprocess.run([sys.executable, "-c", program], check=True, stderr=-3)
print(json.dumps([sorted(held), {
    "write inside": attempt(lambda: (folder / "a").write_text("x")),
    "folder inside": attempt(lambda: (folder / "b").mkdir()),
    "no file at all": attempt(lambda: Path(os.devnull).write_text("x")),
    "read outside": attempt(lambda: (outside / "kept").read_text()),
    "write outside": attempt(lambda: (outside / "new").write_text("x")),
    "change outside": attempt(lambda: (outside / "kept").write_text("x")),
    "cut outside": attempt(lambda: os.truncate(outside / "kept", 0)),
    "remove outside": attempt(lambda: (outside / "kept").unlink()),
    "link outside": attempt(lambda: (outside / "link").symlink_to("/etc")),
    "move outside": attempt(lambda: os.replace(folder / "a", outside / "moved")),
    "folder outside": attempt(lambda: (outside / "sub").mkdir()),
    "by a program": attempt(lambda: subprocess.run(["touch", str(outside / "touched")], check=True, stderr=-3)),
    "connect": attempt(connect),
    "connect in Python": attempt(lambda: socket.create_connection(("127.0.0.1", port), 5)),
}]))
"""


def attempts(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", ATTEMPTS, str(inside), str(outside), str(server.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    held, found = json.loads(done.stdout)
    return set(held), found, outside


def test_the_process_writes_to_its_folder_only_and_has_no_network(tmp_path):
    held, found, outside = attempts(tmp_path)
    assert found["connect in Python"] == "PermissionError"
    assert [found[name] for name in ("write inside", "folder inside", "no file at all", "read outside")] == ["done"] * 4
    if {NETWORK, FILES} - held:
        pytest.skip(f"this system enforces only {held}")
    assert {found[name] for name in found if "outside" in name and name != "read outside"} <= {"PermissionError", "OSError"}
    assert found["by a program"] == found["connect"] == "CalledProcessError"
    assert [path.name for path in outside.iterdir()] == ["kept"] and (outside / "kept").read_text() == "kept"


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint):
    return read_checkpoint(str(random_checkpoint("tiny")))


def test_it_is_given_no_token_and_nothing_that_loosens_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = process_module._environment(tmp_path)
    assert not {"HF_TOKEN", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"} & set(given)
    assert given["OMP_NUM_THREADS"] == "1" and given["HF_HUB_OFFLINE"] == "1"
    assert {given[name] for name in ("HOME", "TMPDIR")} == {str(tmp_path / "home"), str(tmp_path / "tmp")}


@pytest.fixture
def of_its_own(monkeypatch):
    """A new process for this test, which may end it: the tests behind it go on with the one that has imported NeMo."""
    monkeypatch.setattr(process_module, "_process", None)
    yield
    if process_module._process is not None:
        process_module._process.end()


def test_an_error_in_it_is_the_callers_and_it_serves_again(checkpoint):
    other = replace(checkpoint, sha256="0" * 64)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="was changed"), in_nemo(other, {"task": "record"}, silent) as results:
            list(results)
    process = process_module._process
    assert process is not None and process.tasks >= 2 and process.process.poll() is None
    assert not list(process.folder.glob("task-*"))


@pytest.mark.parametrize("task", [{"task": "train"}, {"task": ""}, {}], ids=str)
def test_a_task_that_it_does_not_know_is_refused_before_it_is_started(checkpoint, task, monkeypatch):
    monkeypatch.setattr(process_module, "_started", lambda: pytest.fail("started"))
    with pytest.raises(UsageError, match="one of record, export"), in_nemo(checkpoint, task, silent):
        pass


def test_a_killed_process_is_an_error_and_leaves_nothing(checkpoint, of_its_own):
    ended = pytest.raises(CheckpointError, match=r"(?s)ended before it was done.*signal 9")
    with ended, in_nemo(checkpoint, {"task": "record"}, silent) as results:
        process = process_module._process
        assert process is not None
        process.process.kill()
        list(results)
    assert process is not None and not process.folder.exists()


def test_what_it_printed_is_shown_where_it_ended_only(checkpoint, of_its_own, capfd):
    """The last of it, and nothing that moves a cursor."""
    lines = []
    with pytest.raises(CheckpointError), in_nemo(checkpoint, {"task": "record"}, lines.append) as results:
        process = process_module._process
        assert process is not None
        process._printed.write(b"first\n" + b"." * process_module.PRINTED_BYTES + b"\n\x1b[2Jlast words\n")
        process._printed.flush()
        process.process.kill()
        list(results)
    assert "\\x1b[2Jlast words" in lines[-1] and "first" not in lines[-1]
    assert capfd.readouterr().err == ""


def test_an_interrupted_task_ends_the_process(checkpoint, of_its_own):
    with pytest.raises(KeyboardInterrupt), in_nemo(checkpoint, {"task": "record"}, silent):
        process = process_module._process
        raise KeyboardInterrupt
    assert process is not None and process.process.poll() is not None and not process.folder.exists()


HOSTILE = {
    "a list": (lambda raw: [], "holds something else"),
    "tokens of words": (lambda raw: raw["utterances"][0].update(tokens=["x"]), "tokens"),
    "negative": (lambda raw: raw["utterances"][0].update(enc_frames=-1), "enc_frames"),
    "huge": (lambda raw: raw["utterances"][0].update(enc_frames=10**12), "enc_frames"),
    "other frames": (lambda raw: raw["utterances"][0].update(enc_frames=10**6), "damaged"),
    "other audio": (lambda raw: raw["utterances"][0].update(sha256="0" * 64), "damaged"),
    "no hash": (lambda raw: raw.pop("frames_sha256"), "no frames_sha256"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_it_writes_is_checked(oracle_folder, name):
    folder, corpus, width = oracle_folder
    change, reason = HOSTILE[name]
    path = next(folder.glob("streaming-6.json"))
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(change(raw) if name == "a list" else (change(raw), raw)[1]))
    with pytest.raises(ArtifactError, match=reason):
        recording._read(path, corpus, 6, width)


def test_frames_that_hold_a_pickle_are_refused(oracle_folder):
    folder, corpus, width = oracle_folder
    packed = folder / "streaming-6.npz"
    np.savez(packed, frames=np.array([{}] * 10**6, object))
    raw = json.loads((folder / "streaming-6.json").read_text())
    raw["frames_sha256"] = recording.sha256_file(packed)
    (folder / "streaming-6.json").write_text(json.dumps(raw))
    with pytest.raises(ArtifactError, match="damaged"):
        recording._read(folder / "streaming-6.json", corpus, 6, width)


@pytest.mark.parametrize("at, value", [(6, 1), (8, 99), (8, 8)], ids=["encrypted", "packed in another way", "not packed so"])
def test_frames_whose_archive_is_damaged_are_refused(oracle_folder, at, value):
    """In both places of the archive that state how the entry is stored; the hash is one that was written with it."""
    folder, corpus, width = oracle_folder
    packed = folder / "streaming-6.npz"
    content = bytearray(packed.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        content[content.index(signature) + at + offset] = value
    packed.write_bytes(content)
    raw = json.loads((folder / "streaming-6.json").read_text())
    raw["frames_sha256"] = recording.sha256_file(packed)
    (folder / "streaming-6.json").write_text(json.dumps(raw))
    with pytest.raises(ArtifactError, match="damaged"):
        recording._read(folder / "streaming-6.json", corpus, 6, width)


@pytest.fixture
def oracle_folder(oracle, eval_corpus, reference_checkpoint, tmp_path):
    return shutil.copytree(oracle.folder, tmp_path / "oracle"), eval_corpus, reference_checkpoint.spec.encoder.d_model
