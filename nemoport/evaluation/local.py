"""Workers as processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from nemoport.errors import NemoportError
from nemoport.evaluation.item import Item
from nemoport.evaluation.pool import Done, Ended, Event, Ready
from nemoport.evaluation.transcriber import Opening, Transcriber

WAIT_S = 10.0
SECONDS_TO_END = 5.0


class LocalWorker:
    """A process, and the pipe to it."""

    def __init__(self, opening: Opening):
        context = get_context("spawn")  # a fork would inherit onnxruntime's threads
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(opening, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def give(self, pack: Sequence[Item]) -> None:
        """Sends utterances to it."""
        with suppress(OSError):  # it has ended, which `LocalEngine.events` finds
            self.pipe.send(list(pack))

    def event(self) -> Event:
        """Reads what it has sent."""
        try:
            sent = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(SECONDS_TO_END)
            code = self.process.exitcode
            named = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return Ended(f"process {self.process.pid}: {named}")
        if sent is None:
            return Ready()
        return Ended(str(sent), sent) if isinstance(sent, NemoportError) else Done([sent])


class LocalEngine:
    """Processes of this machine. See `nemoport.evaluation.pool.Engine`."""

    pack = 1

    def __init__(self, opening: Opening):
        self._opening = opening
        self._workers: dict[Any, LocalWorker] = {}

    def start(self) -> LocalWorker:
        """Starts a process."""
        worker = LocalWorker(self._opening)
        self._workers[worker.pipe] = worker
        return worker

    def events(self) -> list[tuple[LocalWorker, Event]]:
        """Waits for the next records, or ends, of processes."""
        found = []
        for pipe in wait(list(self._workers), WAIT_S):
            worker = self._workers[pipe]
            event = worker.event()
            if isinstance(event, Ended):
                del self._workers[pipe]
            found.append((worker, event))
        return found

    def close(self) -> None:
        """Ends every process."""
        for worker in self._workers.values():
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
        self._workers.clear()


def _serve(opening: Opening, pipe: Connection) -> None:
    """What the process runs: it sends None when it is ready, then a record of each utterance that it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to every process: the first one's word counts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        transcriber = Transcriber(opening)
    except NemoportError as error:
        pipe.send(error)
        return
    pipe.send(None)
    while True:
        try:
            pack = pipe.recv()
            for item in pack:
                pipe.send(transcriber.record(item))
        except (EOFError, OSError):  # the first process has closed its end
            return


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
