"""Workers as actors of Ray, on the machines of a cluster. Paths, ids and records go through Ray; audio is read by the worker.

Each machine has nemoport and the package, or reaches the Hub, and sees the audio at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemoport.errors import NemoportError, first_line
from nemoport.evaluation.item import Item
from nemoport.evaluation.pool import Done, Ended, Event, Ready
from nemoport.evaluation.transcriber import Opening, Record, Transcriber
from nemoport.ray_cluster import join
from nemoport.runtime import check_installed
from nemoport.text import clipped

WAIT_S = 10.0


class RemoteTranscriber:
    """The actor."""

    def __init__(self, opening: Opening):
        self._opening = opening

    def begin(self) -> NemoportError | None:
        """Opens the artifact. Returns what keeps it from that."""
        try:
            self._transcriber = Transcriber(self._opening)
        except NemoportError as error:
            return error
        return None

    def records(self, pack: Sequence[Item]) -> list[Record]:
        """Transcribes utterances."""
        return [self._transcriber.record(item) for item in pack]


class RayWorker:
    """The handle of an actor."""

    def __init__(self, engine: RayEngine, actor: Any):
        self.actor, self._engine = actor, engine

    def give(self, pack: Sequence[Item]) -> None:
        """Sends utterances to it."""
        self._engine.expect(self, self.actor.records.remote(list(pack)))


class RayEngine:
    """Actors of a cluster. See `nemoport.evaluation.pool.Engine`."""

    def __init__(self, opening: Opening, address: str | None = None, *, cpus: int | None = None, pack: int = 8):
        """address, cpus: as of `nemoport.ray_cluster.join`; pack: utterances of one call. Raises UsageError where Ray is not
        installed, or no cluster is there."""
        check_installed("The engine ray", ("ray",), "scale")
        self._ray, self._own = join(address, cpus)
        self._opening, self.pack = opening, pack
        self._expected: dict[Any, RayWorker] = {}
        self._begun: set[RayWorker] = set()
        self._remote: Any = self._ray.remote(RemoteTranscriber)

    def cpus(self) -> int:
        """Number of processors of the cluster now."""
        return int(self._ray.cluster_resources().get("CPU", 1))

    def start(self) -> RayWorker:
        """Asks for an actor, which takes as many processors as it has threads."""
        actor = self._remote.options(num_cpus=max(1, self._opening.settings.threads)).remote(self._opening)
        worker = RayWorker(self, actor)
        self.expect(worker, actor.begin.remote())
        return worker

    def expect(self, worker: RayWorker, future: Any) -> None:
        """Notes a call of an actor."""
        self._expected[future] = worker

    def events(self) -> list[tuple[RayWorker, Event]]:
        """Waits for calls that end."""
        finished, _ = self._ray.wait(list(self._expected), num_returns=1, timeout=WAIT_S)
        found = []
        for future in finished:
            if worker := self._expected.pop(future, None):
                event = self._event(worker, future)
                if isinstance(event, Ended):
                    self._forget(worker)
                found.append((worker, event))
        return found

    def close(self) -> None:
        """Ends every actor, and Ray where this engine started it."""
        for worker in set(self._expected.values()) | self._begun:
            self._forget(worker)
        if self._own:
            self._ray.shutdown()

    def _event(self, worker: RayWorker, future: Any) -> Event:
        try:
            value = self._ray.get(future)
        except self._ray.exceptions.RayError as error:
            return Ended(clipped(first_line(error), 300))
        if isinstance(value, list):
            return Done(value)
        if isinstance(value, NemoportError):
            return Ended(str(value), value)
        self._begun.add(worker)
        return Ready()

    def _forget(self, worker: RayWorker) -> None:
        self._expected = {future: one for future, one in self._expected.items() if one is not worker}
        self._begun.discard(worker)
        self._ray.kill(worker.actor)
