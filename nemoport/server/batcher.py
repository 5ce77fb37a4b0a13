"""Threads that run the next chunk of every session that has one, in one batch: a session joins with its next chunk."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Sequence

from nemoport.errors import NemoportError
from nemoport.server.actions import Audio
from nemoport.server.live import Item, Live
from nemoport.server.metrics import Metrics
from nemoport.session import Session
from nemoport.stream import advance


class Batcher:
    """The sessions of one opened model, and its threads. One call of `run` is one batch."""

    def __init__(self, session: Session, batch: int, workers: int, metrics: Metrics, name: str):
        """batch: most streams of one run. workers: threads; with more than one, Python's work for a batch goes on while the
        encoder runs for another."""
        self._session, self._most, self._metrics, self._name = session, batch, metrics, name
        self._lives: set[Live] = set()
        self._changed = threading.Condition()
        self._ends = False
        self._threads = [threading.Thread(target=self._work, name=f"batch-{i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    def add(self, live: Live) -> None:
        """Takes a session."""
        with self._changed:
            self._lives.add(live)

    def remove(self, live: Live) -> None:
        """Gives a session up, whatever it waits for."""
        with self._changed:
            self._lives.discard(live)

    def offer(self, live: Live, item: Item, samples: int = 0) -> None:
        """Appends an item to what waits of a session. samples: that it holds."""
        with self._changed:
            live.items.append(item)
            live.waiting_samples += samples
            was_complete = live.ready_s > 0
            if not isinstance(item, Audio):
                live.is_urgent = True
            if not was_complete and (live.is_urgent or live.waiting_samples >= live.missing_samples):
                live.ready_s = time.monotonic()
                self._changed.notify()

    def end(self) -> None:
        """Ends the threads, each behind the batch that it runs."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while taken := self._take():
            self._run(taken)

    def _take(self) -> list[tuple[Live, Sequence[Item], float]]:
        """Waits for sessions that something can be done for, and takes those that lag most. Empty at the end."""
        with self._changed:
            while not self._ends:
                if ready := [live for live in self._lives if live.is_ready]:
                    break
                self._changed.wait()
            else:
                return []
            if len(ready) > self._most:
                ready = sorted(ready, key=lambda live: live.ahead_s)[: self._most]
            taken = []
            for live in ready:
                live.is_busy = True
                items: list[Item] = []
                if not live.stream.chunks:  # else what was fed is not yet encoded, and more would pile up
                    items, live.items = live.items, []
                    live.waiting_samples, live.is_urgent = 0, False
                taken.append((live, items, live.ready_s or time.monotonic()))
                live.ready_s = 0.0
            return taken

    def _run(self, taken: list[tuple[Live, Sequence[Item], float]]) -> None:
        """Feeds the sessions, encodes a chunk of each, and gives each its events. A session that fails costs no other."""
        going: list[tuple[Live, float]] = []
        for live, items, ready_s in taken:
            try:
                events = live.feed(items)
                if events or (items and live.is_awaited):
                    live.is_awaited = False
                    live.deliver(events, None)
            except Exception as error:
                self._fail(live, error)
            else:
                going.append((live, ready_s))
        with_chunk = [live for live, _ in going if live.stream.chunks]
        if with_chunk:
            started = time.monotonic()
            try:
                advance(self._session, [live.stream for live in with_chunk])
            except Exception as error:
                for live in with_chunk:
                    self._fail(live, error)
                going = [one for one in going if one[0] not in with_chunk]
            self._metrics.batch(self._name, len(with_chunk), time.monotonic() - started)
        had_chunk = set(with_chunk)
        for live, ready_s in going:
            try:
                if events := live.collect(had_chunk=live in had_chunk):
                    live.deliver(events, None)
                if live in had_chunk:
                    self._metrics.latency(self._name, time.monotonic() - ready_s)
            except Exception as error:
                self._fail(live, error)
        with self._changed:
            now = time.monotonic()
            for live, _, _ in taken:
                live.is_busy = False
                live.update_missing()
                live.ready_s = (live.ready_s or now) if live.is_ready else 0.0
                if live.ready_s:
                    self._changed.notify()

    def _fail(self, live: Live, error: Exception) -> None:
        self.remove(live)
        if not isinstance(error, NemoportError):
            traceback.print_exc()
            error = NemoportError("The server failed.", found=type(error).__name__, todo="try again; tell who runs it")
        live.deliver((), error)
