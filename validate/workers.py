"""The processes that judge variants at the same time. They end with the process that started them, however that one ends."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from nemoport.progress import Progress, Step

SECONDS_TO_END = 5.0  # after which a worker that is deep in a library is ended as it is
POLL_SECONDS = 0.1  # between two looks whether the workers have ended
T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(work: Callable[[T], R], tasks: Sequence[T], jobs: int, progress: Progress) -> list[R]:
    """Returns the results of `work`, a function of a module, in the order of the tasks, from `jobs` processes.

    What `work` gives to `report` is given to `progress`, in this process. Ctrl-C or SIGTERM ends the workers too. Raises what
    `work` raises.
    """
    context = get_context("spawn")  # a fork would inherit onnxruntime's and torch's threads
    stop, stopper = context.Pipe(duplex=False)
    reports, reporter = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stop, reporter, context.Lock()))
    with stop, stopper, reports, reporter, _relayed(reports, progress), pool:
        try:
            return list(pool.map(partial(_orderly, work), tasks))
        except (KeyboardInterrupt, SystemExit):
            stopper.close()
            raise


def report(one: str | Step) -> None:
    """In a worker, a `Progress` that is relayed to the process that started it."""
    assert _reporter, "not a worker of map_in_processes"
    connection, lock = _reporter
    with lock:
        connection.send(one)


_reporter: Any = None  # in a worker, where to send reports, and the lock that the workers share


@contextmanager
def _relayed(reports: Any, progress: Progress) -> Iterator[None]:
    """Gives `progress` what comes through the connection, until its block has ended and all has come."""
    ended = threading.Event()

    def relay() -> None:
        while reports.poll(POLL_SECONDS) or not ended.is_set():
            if reports.poll():
                progress(reports.recv())

    relaying = threading.Thread(target=relay, daemon=True)
    relaying.start()
    try:
        yield
    finally:
        ended.set()
        relaying.join(SECONDS_TO_END)  # a worker that was killed may have sent half of a report


def _begin(stop: Any, reporter: Any, lock: Any) -> None:
    global _reporter
    _reporter = reporter, lock
    end_with_parent(stop)


def end_with_parent(stop: Any = None) -> None:  # a Connection, or on Windows a PipeConnection
    """Ends this worker process as soon as the process that started it has ended, was killed, or has closed the end of `stop`.

    Otherwise the worker would finish its task, while another `nemoport validate` judged the same variant. Does nothing in a
    process that multiprocessing did not start.
    """
    parent = parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to every process: the parent's word counts
    ends = [parent.sentinel, *([stop] if stop else [])]

    def watch() -> None:
        wait(ends)
        _interrupt_main()
        time.sleep(SECONDS_TO_END)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _orderly(work: Callable[[T], R], task: T) -> R:
    signal.signal(signal.SIGTERM, _end)
    try:
        return work(task)
    except SystemExit:
        atexit._run_exitfuncs()  # such as the end of NeMo's process
        os._exit(1)  # the executor would take it for a result, and begin the next task


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the executor repeats it when another worker has ended: too early for this one
    sys.exit(1)


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # also wakes it
    else:
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
