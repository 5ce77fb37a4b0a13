"""NeMo in a process of its own, which has no network and writes to one folder: a checkpoint may come from a stranger.

NeMo, SentencePiece and torch parse a checkpoint's files, and a fault of theirs is then confined to that folder. What comes out of
it is data that the caller checks: JSON, arrays and graphs.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on

from nemoport import errors
from nemoport.errors import CheckpointError, UsageError
from nemoport.export.checkpoint import Checkpoint
from nemoport.files import scratch_folder
from nemoport.progress import Progress, Step
from nemoport.resources import Needs, check_free
from nemoport.schema import MOST_BYTES, Text, check, real
from nemoport.speech.corpus import Corpus
from nemoport.text import clipped, printable

RAISED = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}  # what a task may end with
# Of the environment, what libraries need to be found and to be as fast; no token, no cache, nothing that loosens torch's checks.
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "LANG", "LC_ALL", "PYTHONHASHSEED")
_KEPT_OF = ("OMP_", "MKL_", "OPENBLAS_", "KMP_")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
PRINTED_BYTES = 4000  # of what the process printed, which are shown where it ended before it was done
# By task. The weights are in memory twice while the model is restored; NeMo's export writes them.
NEEDS = {"record": Needs(memory=2.4, held=2.2), "export": Needs(memory=2.4, held=2.2, disk=1.0)}


@contextmanager
def in_nemo(checkpoint: Checkpoint, task: dict[str, Any], progress: Progress) -> Iterator[Iterator[tuple[str, Path]]]:
    """Gives NeMo's process a task and yields an iterator of (name of a result, folder that it is in), as they are complete.

    task: in JSON's types, for nemo_tasks.py. The folder vanishes with the block. The process is started by the first task and
    serves the later ones, because importing NeMo takes 10 s; one whose task did not end well is not used again. The iterator
    raises the NemoportError that the task ended with, CheckpointError where the process was killed. Raises UsageError for a task
    that is not in NEEDS, ResourceError or OutputError where surely too little memory or disk is free.
    """
    name = task.get("task")
    if name not in NEEDS:
        names = ", ".join(NEEDS)
        raise UsageError("NeMo's process has no such task.", expected=f"one of {names}", found=repr(name), todo="name one")
    check_free(f"NeMo ({name})", checkpoint.weights_bytes, NEEDS[name], Path(tempfile.gettempdir()), progress)
    process = _started()
    folder = process.folder / f"task-{process.tasks}"
    process.tasks += 1
    folder.mkdir()
    where = {"checkpoint": str(checkpoint.path.resolve()), "sha256": checkpoint.sha256, "spec": checkpoint.spec.to_dict()}
    process.send({"folder": str(folder), **where, **task})
    process.idle = False
    try:
        yield _results(process, folder, checkpoint, progress)
    finally:
        if not process.idle:
            process.end()
        shutil.rmtree(folder, ignore_errors=True)


def corpus_rows(corpus: Corpus) -> list[dict[str, Any]]:
    """The utterances of a corpus in JSON's types, for a task."""
    return [asdict(utterance) | {"path": str(utterance.path.resolve())} for utterance in corpus.utterances]


class _Process:
    """The process, and the folder that it may write to. idle: it waits for a task; tasks: how many it was given."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.folder = self._open.enter_context(scratch_folder())
        for name in ("home", "tmp"):
            (self.folder / name).mkdir()
        self.idle, self.tasks = True, 0
        command = [sys.executable, "-P", "-m", "nemoport.validate.nemo_tasks", str(self.folder)]
        environment = _environment(self.folder)
        # What NeMo and its libraries print may be a stranger's, and would be printed over the bars: it is shown where it matters.
        self._printed = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed, env=environment, text=True
        )
        self._open.callback(self._kill)

    def send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended, which reading from it shows
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def lines(self) -> Iterator[tuple[str, Any]]:
        """Yields what the process reports of its task."""
        assert self.process.stdout
        for line in self.process.stdout:
            yield from json.loads(line).items()

    def printed(self) -> str:
        """The last lines that it printed to stderr."""
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - PRINTED_BYTES))
        return printable(self._printed.read().decode(errors="replace"))

    def end(self) -> None:
        """Ends the process and removes its folder."""
        self._open.close()

    def _kill(self) -> None:
        self.process.kill()  # does nothing to one that has ended
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


def _started() -> _Process:
    global _process
    if _process is None or not _process.idle or _process.process.poll() is not None:
        if _process is not None:
            _process.end()
        _process = _Process()
    return _process


_process: _Process | None = None
atexit.register(lambda: _process.end() if _process else None)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_OF)}
    places = {"HOME": "home", "USERPROFILE": "home", "TMPDIR": "tmp", "TEMP": "tmp", "TMP": "tmp"}
    return kept | _OFFLINE | {name: str(folder / place) for name, place in places.items()}


class _Reported(TypedDict):
    """The fields of a `Step`, within the bounds of what can be shown."""

    name: Text
    done: Annotated[float, real(0, MOST_BYTES)]
    total: Annotated[float, real(0, MOST_BYTES)] | None
    unit: Text


def _report(value: Any) -> str | Step:
    """What the process reports, which may be a stranger's by then, as it can be shown. Raises ArtifactError."""
    if isinstance(value, str):
        return printable(value)
    return Step(**check(_Reported, value, "The report of NeMo's process", "run it again"))


def _results(process: _Process, folder: Path, checkpoint: Checkpoint, progress: Progress) -> Iterator[tuple[str, Path]]:
    for kind, value in process.lines():
        if kind == "result":
            yield value, folder
        elif kind == "progress":
            progress(_report(value))
        elif kind == "error":
            process.idle = True
            raise RAISED[value.pop("kind")](**value | {"found": clipped(value["found"], 2000)})
        else:  # done
            process.idle = True
            return
    code = process.process.wait()
    if printed := process.printed():
        progress(printed)
    raise CheckpointError(
        f"NeMo's process for {checkpoint.path} ended before it was done.",
        expected="the end of its task",
        found=f"signal {-code}: out of memory, or a fault of a library" if code < 0 else f"exit code {code}",
        todo="see the lines above; if it was out of memory, free some or take a smaller corpus",
    )
