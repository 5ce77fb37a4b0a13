"""The processes that judge variants at the same time. They end with the process that started them, however that one ends."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

SECONDS_TO_END = 5.0  # after which a worker that is deep in a library is ended as it is
T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(work: Callable[[T], R], tasks: Sequence[T], jobs: int) -> list[R]:
    """Returns the results of `work`, a function of a module, in the order of the tasks, from `jobs` processes.

    Ctrl-C or SIGTERM ends the workers too. Raises what `work` raises.
    """
    context = get_context("spawn")  # a fork would inherit onnxruntime's and torch's threads
    stop, stopper = context.Pipe(duplex=False)
    with stop, stopper, ProcessPoolExecutor(jobs, context, initializer=end_with_parent, initargs=(stop,)) as pool:
        try:
            return list(pool.map(partial(_orderly, work), tasks))
        except (KeyboardInterrupt, SystemExit):
            stopper.close()
            raise


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
