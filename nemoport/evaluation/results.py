"""Results on disk. One process writes them, so that each utterance has one record.

RESULTS/
    run.json            what made them, see nemoport/evaluation/identity.py
    journal.jsonl       a record of each utterance as it is done; a killed run goes on from here
    hypotheses.jsonl    all of them, in the order of their positions: the same bytes whoever ran what, in which order
    times.jsonl         in the same order: processing times, and which worker
    summary.json        counts, times, real-time factors
    scores/NAME.json    of `nemoport score`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nemoport.errors import ArtifactError, UsageError
from nemoport.evaluation.item import POSITIONS, key, position
from nemoport.evaluation.summary import Summary
from nemoport.evaluation.transcriber import Record
from nemoport.files import scratch_folder, write_json

JOURNAL, HYPOTHESES, TIMES, SUMMARY = "journal.jsonl", "hypotheses.jsonl", "times.jsonl", "summary.json"
TIME_KEYS = ("work_seconds", "processor_seconds", "worker", "instruction_set")  # of a record, which differ from run to run
MOST_SORTED_BYTES = 32 << 20  # of the journal in memory at once, about five times as large there
MOST_BUCKETS = 512  # files that are open at once
LONGEST_LINE = 64 << 20
SYNC_EVERY = 256  # records


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine from writing the same results. Raises UsageError where one does."""
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        todo = "wait for it, or name another folder"
        what = f"Another process writes the results in {folder}."
        raise UsageError(what, expected="one process at a time", found="a second one", todo=todo) from error
    try:
        yield
    finally:
        lock.release()


class Journal:
    """The records of a run, appended as they come. done: keys of the ids that it has, but for failed ones where these are tried
    again."""

    def __init__(self, folder: Path, *, retry_failed: bool = False):
        """Opens the journal, without a line that a killed run did not finish. Raises ArtifactError for a damaged one."""
        path = folder / JOURNAL
        if path.exists():
            _drop_torn_line(path)
        self.done: set[bytes] = set()
        for record in read_records(path) if path.exists() else ():
            if not (retry_failed and "error" in record):
                self.done.add(key(record["id"]))
        self._stream: BinaryIO = open(path, "ab")  # noqa: SIM115
        self._unsynced = 0

    def add(self, record: Record) -> None:
        """Writes a record: it outlives this process at once, and a failure of power within SYNC_EVERY records."""
        self._stream.write(line_of(record))
        self._stream.flush()
        self.done.add(key(record["id"]))
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            os.fsync(self._stream.fileno())
            self._unsynced = 0

    def close(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def line_of(record: Any) -> bytes:
    """Returns a record as a line of JSON: keys sorted, so that equal records are equal bytes."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def read_records(path: Path, *, of_times: bool = False) -> Iterator[Record]:
    """Reads records line by line. of_times: those of times.jsonl, which have no text. Raises ArtifactError for a line that is
    none."""
    with open(path, "rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), 1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                    raise ValueError("not a record of an utterance")
                if not of_times and not isinstance(record.get("text", record.get("error")), str):
                    raise ValueError("neither a text nor an error")
            except (ValueError, RecursionError) as error:
                todo = "restore the file, or begin with a new folder"
                raise ArtifactError(
                    f"Line {number} of {path} cannot be read.", expected="a record", found=str(error), todo=todo
                ) from error
            yield record


def finished(folder: Path) -> Path:
    """Returns hypotheses.jsonl of results that are complete. Raises ArtifactError."""
    path = folder / HYPOTHESES
    if not path.is_file():
        raise ArtifactError(
            f"{folder} has no results that are complete.",
            expected=f"{HYPOTHESES}, written when every utterance is done",
            found="a run that was stopped" if (folder / JOURNAL).exists() else "no results",
            todo="run the same `nemoport evaluate` again: it goes on where it was",
        )
    return path


def write_ordered(folder: Path) -> Summary:
    """Writes hypotheses.jsonl, times.jsonl and summary.json from the journal. Raises OutputError, ArtifactError."""
    summary = Summary()
    with scratch_folder(folder) as scratch:
        with open(scratch / HYPOTHESES, "wb") as hypotheses, open(scratch / TIMES, "wb") as times:
            for record in _ordered(folder / JOURNAL, scratch):
                summary.add(record)
                hypotheses.write(line_of({key: value for key, value in record.items() if key not in TIME_KEYS}))
                times.write(line_of({key: record[key] for key in ("id", *TIME_KEYS)}))
            for stream in (hypotheses, times):
                stream.flush()
                os.fsync(stream.fileno())
        write_json(folder / SUMMARY, summary.described())
        for name in (TIMES, HYPOTHESES):  # the last one says that all are there
            os.replace(scratch / name, folder / name)
    return summary


def complete_records(folder: Path) -> Iterator[tuple[Record, Record]]:
    """Yields what hypotheses.jsonl and times.jsonl of complete results state of each utterance. Raises ArtifactError."""
    yield from zip(read_records(finished(folder)), read_records(folder / TIMES, of_times=True), strict=True)


def _ordered(journal: Path, scratch: Path) -> Iterator[Record]:
    """Yields the last record of each id in the order of the positions, from parts that each fit into memory."""
    count = min(MOST_BUCKETS, journal.stat().st_size // MOST_SORTED_BYTES + 1)
    if count == 1:
        yield from _sorted(read_records(journal))
        return
    parts = [scratch / f"{number}.part" for number in range(count)]
    with ExitStack() as stack:
        streams = [stack.enter_context(open(part, "wb")) for part in parts]
        for record in read_records(journal):
            streams[position(record["id"]) * count // POSITIONS].write(line_of(record))
    for part in parts:
        yield from _sorted(read_records(part))
        part.unlink()


def _sorted(records: Iterable[Record]) -> Iterator[Record]:
    last = {record["id"]: record for record in records}
    for id in sorted(last, key=lambda id: (position(id), id)):
        yield last[id]


def _drop_torn_line(path: Path) -> None:
    """Cuts off what follows the last end of a line."""
    with open(path, "rb+") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 << 20))
            stream.seek(start)
            if (at := stream.read(end - start).rfind(b"\n")) >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
