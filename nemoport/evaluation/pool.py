"""Hands utterances to workers, in any engine, and takes their records: a worker that ends is replaced, and nothing is lost."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from nemoport.errors import NemoportError, ResourceError
from nemoport.evaluation.item import Item
from nemoport.evaluation.transcriber import Record
from nemoport.progress import Progress

OUTSTANDING = 2  # packs that a worker has at once, so that it does not wait for the next one
MOST_ATTEMPTS = 3  # of an utterance with which workers end
MOST_ENDS = 10  # workers that end one after another without a record between them; three rounds of all, where these are more


@dataclass(frozen=True)
class Ready:
    """The worker can be given packs."""


@dataclass(frozen=True)
class Done:
    """Records of a pack, in its order. They may come one by one."""

    records: Sequence[Record]


@dataclass(frozen=True)
class Ended:
    """The worker is gone. reason: in words; error: what kept it from beginning."""

    reason: str
    error: NemoportError | None = None


Event = Ready | Done | Ended


class Worker(Protocol):
    """A process that transcribes."""

    def give(self, pack: Sequence[Item]) -> None:
        """Sends utterances to it. Raises nothing: a worker that has ended says so as an event."""
        ...


class Engine(Protocol):
    """Where workers run. pack: utterances that a worker is given at once."""

    pack: int

    def start(self) -> Worker:
        """Starts a worker, which is ready later."""
        ...

    def events(self) -> Sequence[tuple[Worker, Event]]:
        """Waits, seconds at most, and returns what has happened."""
        ...

    def close(self) -> None:
        """Ends every worker."""
        ...


class Pool:
    """Workers at work. `run` yields a record of each item."""

    def __init__(self, engine: Engine, workers: int, items: Iterable[Item], progress: Progress):
        self._engine, self._workers, self._waiting, self._progress = engine, workers, iter(items), progress
        self._again: deque[list[Item]] = deque()
        self._attempts: Counter[str] = Counter()
        self._given: dict[Worker, deque[list[Item]]] = {}  # of each worker, its packs
        self._ready: set[Worker] = set()
        self._ends = 0  # since the last record
        self._failed: deque[Record] = deque()

    def run(self) -> Iterator[tuple[Item, Record]]:
        """Yields each item with its record, as they come. Raises what keeps every worker from beginning, and ResourceError where
        workers end without a record."""
        first = self._next()  # without an utterance there is no worker to wait for
        if first is None:
            return
        self._again.append(first)
        for _ in range(self._workers):
            self._given[self._engine.start()] = deque()
        while self._supply():
            for worker, event in self._engine.events():
                if isinstance(event, Ready):
                    self._ready.add(worker)
                elif isinstance(event, Done):
                    yield from self._done(worker, event.records)
                else:
                    yield from self._ended(worker, event)

    def _supply(self) -> bool:
        """Gives packs to those that are ready. Returns whether there is anything to wait for."""
        for worker in sorted(self._ready, key=lambda worker: len(self._given[worker])):
            while len(self._given[worker]) < OUTSTANDING and (pack := self._next()):
                self._given[worker].append(pack)
                worker.give(pack)
        if any(self._given.values()):
            return True
        if (pack := self._next()) is None:
            return False
        self._again.appendleft(pack)
        return True

    def _next(self) -> list[Item] | None:
        return self._again.popleft() if self._again else list(islice(self._waiting, self._engine.pack)) or None

    def _done(self, worker: Worker, records: Sequence[Record]) -> Iterator[tuple[Item, Record]]:
        self._ends = 0
        for record in records:
            pack = self._given[worker][0]
            yield pack.pop(0), record
            if not pack:
                self._given[worker].popleft()

    def _ended(self, worker: Worker, event: Ended) -> Iterator[tuple[Item, Record]]:
        """The first pack that it had is what it may have ended with: its utterances are tried again one by one."""
        packs = self._given.pop(worker)
        self._ready.discard(worker)
        suspects = packs.popleft() if packs else []
        self._again.extend(packs)
        for item in suspects:
            self._attempts[item.id] += 1
            if self._attempts[item.id] < MOST_ATTEMPTS:
                self._again.append([item])
            else:
                error = f"the worker ended with it, {MOST_ATTEMPTS} times: {event.reason}"
                yield item, item.known() | {"error": error} | NO_TIMES
        self._ends += 1
        if event.error:  # one machine of many may lack something
            self._progress(f"evaluate: a worker is left out: {event.error}")
            if not self._given:
                raise event.error
            return
        self._progress(f"evaluate: a worker ended ({event.reason}); its utterances are given to others")
        if self._ends >= max(MOST_ENDS, 3 * self._workers):
            raise ResourceError(
                f"{self._ends} workers ended one after another.",
                expected="records",
                found=event.reason,
                todo="look at free memory; fewer --workers; run it again, it goes on where it was",
            )
        self._given[self._engine.start()] = deque()


NO_TIMES = {"work_seconds": 0.0, "processor_seconds": 0.0, "worker": "", "instruction_set": ""}
