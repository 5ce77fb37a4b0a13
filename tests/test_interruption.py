"""Deaths at every rename, kills, SIGTERM and Ctrl-C: what is there is whole, and the next run removes what was left."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nemoport import partial
from nemoport.artifact import Artifact, Recipe
from nemoport.errors import OutputError
from nemoport.export.build import build_variant
from nemoport.files import new_folder, scratch_folder, sha256_file, sweep_leftovers, write_bytes
from nemoport.partial import partial_folder, sweep

ROOT = Path(__file__).resolve().parent.parent
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
RECIPE = Recipe("fp32", None, {"contract": "nemo"})


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A job in the background, or under nohup, ignores some, and so would its processes."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def hashes(folder):
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def started(script, *arguments):
    """A process that runs a script and has printed its first line."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    return process


AT_WORK = """
    import sys, time
    from pathlib import Path
    from nemoport.files import new_folder
    with new_folder(Path(sys.argv[1])) as work:
        (work / "file").write_bytes(bytes(1000))
        print("at work", flush=True)
        time.sleep(60)
    """


def test_only_what_a_dead_process_left_is_removed(tmp_path):
    process = started(AT_WORK, tmp_path / "a")
    (left,) = names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == [left]  # its process lives
    process.kill()
    process.communicate()
    assert names(tmp_path) == [left]
    with new_folder(tmp_path / "b"):
        assert left not in names(tmp_path)  # whatever is made in the folder next
    assert names(tmp_path) == ["b"]


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "locks that do not exclude the own process"])
def test_a_process_does_not_remove_its_own_work(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(partial, "_lock", lambda descriptor: None)
    with partial_folder(tmp_path, "a") as one, partial_folder(tmp_path, "a") as other:
        sweep(tmp_path)
        assert one.is_dir() and other.is_dir() and one != other
    assert names(tmp_path) == []


def test_without_locks_work_goes_on_and_nothing_is_removed(tmp_path, monkeypatch):
    def none(descriptor):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    process = started(AT_WORK, tmp_path / "a")
    process.kill()
    process.communicate()
    left = names(tmp_path)
    monkeypatch.setattr(partial, "_lock", none)
    write_bytes(tmp_path / "b", b"content")
    assert names(tmp_path) == sorted([*left, "b"])


def test_what_is_not_ours_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "folder").mkdir(parents=True)
    build = tmp_path / "build"
    for name in (".a.partial", ".a.0123456.partial", ".a.0123456g.partial", "a.01234567.partial", ".a.01234567.partial.old"):
        (build / name).mkdir(parents=True)
    (build / ".file.01234567.partial").write_text("a file")
    (build / ".link.01234567.partial").symlink_to(elsewhere)
    before = names(build)
    (build / "results" / ".ours.01234567.partial" / "folder").mkdir(parents=True)
    (build / "results" / ".ours.01234567.partial" / "link").symlink_to(elsewhere)
    sweep_leftovers(build)
    assert names(build) == sorted([*before, "results"]) and names(build / "results") == []
    assert names(elsewhere) == ["folder"]


def test_scratch_of_a_killed_run_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    process = started(
        """
        import sys, time
        from pathlib import Path
        from nemoport.files import scratch_folder
        with scratch_folder(Path(sys.argv[1])):
            print("at work", flush=True)
            time.sleep(60)
        """,
        tmp_path,
    )
    process.kill()
    process.communicate()
    (left,) = names(tmp_path)
    with scratch_folder() as folder:
        assert folder.parent.parent == tmp_path and left not in names(tmp_path)
    assert names(tmp_path) == []


@pytest.fixture(scope="module")
def fill():
    def written(folder):
        (folder / "encoder_model.onnx").write_bytes(b"graph")
        return {"encoder": "encoder_model.onnx"}

    return written


DIES = """
    import os, sys
    from pathlib import Path
    from nemoport.artifact import Recipe
    from nemoport.export import build
    from nemoport.export.checkpoint import read_checkpoint

    checkpoint, calls = read_checkpoint(sys.argv[1]), 0

    def dying(call, moment):
        def run(*arguments, **settings):
            global calls
            calls += 1
            if calls == moment:
                os._exit(9)
            done = call(*arguments, **settings)
            calls += 1
            if calls == moment:
                os._exit(9)
            return done
        return run

    def fill(work):
        (work / "encoder_model.onnx").write_bytes(b"graph")
        return {"encoder": "encoder_model.onnx"}

    for moment in range(1, 100):
        if not (process := os.fork()):
            for name in ("rename", "replace", "rmdir", "unlink"):
                setattr(os, name, dying(getattr(os, name), moment))
            build.build_variant(checkpoint, Path(sys.argv[2]) / f"{moment}", Recipe("fp32", None, {"contract": "nemo"}), fill)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(code, flush=True)
        if not code:
            break
    """


@needs_signals
def test_death_around_every_rename_and_removal(reference_checkpoint, fill, tmp_path):
    """A finished variant has its sidecars, and the next run makes what an undisturbed one does, whatever is there."""
    build_variant(reference_checkpoint, tmp_path / "whole", RECIPE, fill)
    whole = hashes(tmp_path / "whole")
    command = [sys.executable, "-c", textwrap.dedent(DIES), reference_checkpoint.path, tmp_path]
    codes = [int(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]
    assert codes == [9] * (len(codes) - 1) + [0] and len(codes) > 12
    for moment in range(1, len(codes) + 1):
        build = tmp_path / f"{moment}"
        if (build / "fp32").exists():
            Artifact.open(build / "fp32").verify_files()
            assert all((build / name).is_file() for name in whole), moment
        build_variant(reference_checkpoint, build, RECIPE, fill)
        assert hashes(build) == whole, moment


def test_export_mends_what_the_variants_share(reference_checkpoint, fill, tmp_path):
    build_variant(reference_checkpoint, tmp_path, RECIPE, fill)
    whole = hashes(tmp_path)
    (tmp_path / "shared" / "filterbank.bin").write_bytes(b"cut")
    (tmp_path / "shared" / "tokens.txt").unlink()
    (tmp_path / "shared" / "languages.json").write_text("of another model")
    (tmp_path / "config.json").unlink()
    build_variant(reference_checkpoint, tmp_path, RECIPE, lambda folder: pytest.fail("made again"))
    assert hashes(tmp_path) == whole


def test_a_variant_of_other_inputs_does_not_get_these_sidecars(reference_checkpoint, fill, tmp_path):
    build_variant(reference_checkpoint, tmp_path, RECIPE, fill)
    whole = hashes(tmp_path)
    other = replace(reference_checkpoint, sha256="0" * 64, tokens=("a",))
    with pytest.raises(OutputError, match="another checkpoint"):
        build_variant(other, tmp_path, RECIPE, fill)
    assert hashes(tmp_path) == whole


def test_a_variant_that_another_run_made_meanwhile_stays(reference_checkpoint, fill, tmp_path):
    def overtaken(checkpoint):
        def written(folder):
            build_variant(checkpoint, tmp_path, RECIPE, fill)
            return fill(folder)

        return written

    assert build_variant(reference_checkpoint, tmp_path, RECIPE, overtaken(reference_checkpoint)).folder == tmp_path / "fp32"
    assert names(tmp_path) == ["config.json", "fp32", "shared"]
    (tmp_path / "fp32").rename(tmp_path / "old")
    with pytest.raises(OutputError, match="another checkpoint"):
        build_variant(reference_checkpoint, tmp_path, RECIPE, overtaken(replace(reference_checkpoint, sha256="0" * 64)))
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "b"):
        (tmp_path / "b" / "of another run").mkdir(parents=True)
    assert names(tmp_path / "b") == ["of another run"]


COMMAND = """
    import sys, time
    from pathlib import Path
    from nemoport import cli
    from nemoport.cli.command import Command
    from nemoport.files import new_folder, scratch_folder

    def run(options):
        with new_folder(Path(sys.argv[1]) / "a" / "b"), scratch_folder(Path(sys.argv[1])):
            print("at work", flush=True)
            time.sleep(60)

    cli.COMMANDS = [Command("wait", "waits", (), run)]
    sys.exit(cli.main(["wait"]))
    """


@needs_signals
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (getattr(signal, "SIGHUP", 1), 129)])
def test_a_signal_leaves_nothing(tmp_path, number, code):
    process = started(COMMAND, tmp_path)
    assert names(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code and names(tmp_path) == []


@needs_signals
def test_an_ignored_signal_stays_ignored(tmp_path):
    process = started(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{textwrap.dedent(COMMAND)}", tmp_path)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143


JOBS = """
    import sys, time
    from pathlib import Path
    from nemoport.ending import orderly_end
    from nemoport.files import new_folder
    from nemoport.validate.workers import map_in_processes

    def work(target):
        with new_folder(Path(target)):
            time.sleep(60)

    if __name__ == "__main__":
        with orderly_end():
            map_in_processes(work, [f"{sys.argv[1]}/{i}" for i in range(4)], 2, print)
    """


@needs_signals
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -9)])
def test_no_worker_outlives_its_parent(tmp_path, number, code):
    script, out = tmp_path / "jobs.py", tmp_path / "out"
    script.write_text(textwrap.dedent(JOBS))
    out.mkdir()
    process = subprocess.Popen([sys.executable, script, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(names(out)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)  # a worker that lives on holds the pipes open
    assert process.returncode == code and time.monotonic() - begin < 10
    assert names(out) == []  # removed by the workers, which ended in order


@needs_signals
def test_random_kills_of_cheap_stages(reference_checkpoint, tmp_path):
    """The short form of bench/interruption.py."""
    pytest.importorskip("torch")
    counts = ["--kills", "3", "--terms", "2", "--interrupts", "1", "--work", str(tmp_path)]
    command = [sys.executable, ROOT / "bench" / "interruption.py", *counts, "--checkpoint", str(reference_checkpoint.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    stages = ["--stage", "export", "--stage", "int8-weight"]
    run = subprocess.run([*command, *stages], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    outcomes = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert len(outcomes) == 6 and any(outcome["ended"] for outcome in outcomes)


def test_a_file_that_is_right_is_not_written_again(tmp_path):
    write_bytes(tmp_path / "a", b"content")
    before = (tmp_path / "a").stat()
    write_bytes(tmp_path / "a", b"content")
    assert (tmp_path / "a").stat().st_ino == before.st_ino
    write_bytes(tmp_path / "a", b"changed")
    assert (tmp_path / "a").read_bytes() == b"changed" and names(tmp_path) == ["a"]
