"""How the command line shows progress, on stderr: bars with an estimate where it is a terminal, lines otherwise."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nemoport.progress import Progress, Step, silent

if TYPE_CHECKING:
    import numpy as np

    from nemoport.audio import Audio

LINE_SECONDS = 10.0  # between two lines of the same step
SHORT_SECONDS = 2.0  # a step of unknown length that took less gets no line of its end


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Progress]:
    """Yields what shows progress until the block ends. It may be called from several threads."""
    if quiet:
        yield silent
    elif is_terminal():
        bars = _Bars()
        try:
            yield bars.show
        finally:
            bars.close()
    else:
        yield _Lines().show


def is_terminal() -> bool:
    """Whether stderr shows bars: not in a file or pipe, on a dumb terminal, or in CI."""
    dumb = os.environ.get("TERM") == "dumb" or os.environ.get("CI", "").lower() not in ("", "0", "false")
    return not dumb and sys.stderr.isatty()


class _Lines:
    """A line for each text; for a step one at its beginning or end, and one every LINE_SECONDS."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[float, float]] = {}  # name -> when it began, when it was last printed; seconds

    def show(self, report: str | Step) -> None:
        line = self._line(report) if isinstance(report, Step) else report
        if line:
            print(line, file=sys.stderr, flush=True)

    def _line(self, step: Step) -> str:
        now = time.monotonic()
        began, printed = self._steps.get(step.name, (now, now))
        is_new = step.name not in self._steps
        due = now - printed >= LINE_SECONDS
        self._steps[step.name] = began, now if due else printed
        if step.ended:
            del self._steps[step.name]
            if step.total is not None:
                return str(step)
            return f"{step.name}: done in {now - began:.0f} s" if now - began >= SHORT_SECONDS else ""
        return str(step) if due or (is_new and step.total is None) else ""


class _Bars:
    """A bar for each step that has begun and not ended, below the lines. rich is imported when the first step begins."""

    def __init__(self) -> None:
        self._bars: Any = None  # while a step runs: between steps, stdout may be printed to
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def show(self, report: str | Step) -> None:
        with self._lock:
            if isinstance(report, Step):
                self._step(report)
            elif self._bars is None:
                print(report, file=sys.stderr, flush=True)
            else:
                self._bars.console.print(report, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Removes the bars, also those of steps that failed."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None

    def _step(self, step: Step) -> None:
        if step.ended:
            if step.name in self._tasks:
                self._bars.remove_task(self._tasks.pop(step.name))
            if not self._tasks and self._bars is not None:
                self._bars.stop()
                self._bars = None
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if step.name not in self._tasks:
            counted = "" if step.total is None else f"{step.total:.0f} {step.unit}".rstrip()
            self._tasks[step.name] = self._bars.add_task(step.name, total=step.total, counted=counted)
        self._bars.update(self._tasks[step.name], completed=step.done, total=step.total)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Time(ProgressColumn):
        """The estimate of what is left; where there is none, the time so far."""

        def render(self, task: Task) -> Text:
            left = task.time_remaining if task.total is not None else None
            return Text(f"{_clock(task.elapsed or 0)}" if left is None else f"{_clock(left)} left")

    name = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    counted = TextColumn("{task.fields[counted]}", markup=False, table_column=Column(no_wrap=True))
    return Progress(
        name,
        BarColumn(bar_width=16),
        counted,
        Time(table_column=Column(no_wrap=True, justify="right")),
        console=Console(stderr=True, emoji=False),
        expand=True,
        transient=True,
        redirect_stdout=False,  # what is printed there may be in a file
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


class WatchedAudio:
    """A source of samples that reports how far it is read."""

    def __init__(self, audio: Audio, rate_hz: int, name: str, progress: Progress):
        self._audio, self._rate_hz, self._name, self._progress, self._read = audio, rate_hz, name, progress, 0

    def read(self, n: int) -> np.ndarray:
        samples, seconds = self._audio.read(n), self._audio.seconds
        self._read += len(samples)
        ended = len(samples) < n
        if seconds is None:
            self._progress(Step(self._name, 1.0 if ended else 0.0))
        else:
            self._progress(Step(self._name, seconds if ended else self._read / self._rate_hz, seconds, "s of audio"))
        return samples
