"""Which replica of Ray Serve takes the next session. Serve's proxies import this module: it needs Ray."""

from __future__ import annotations

from collections import Counter
from itertools import count

from ray.serve.request_router import FIFOMixin, PendingRequest, ReplicaID, RequestRouter, RunningReplica


class FewestRequests(FIFOMixin, RequestRouter):
    """The replica with the fewest sessions and requests of this proxy under way; of several, that whose turn is longest ago.

    Serve's own router fills the replicas of the proxy's node first, and goes by lengths that it asked for seconds ago: sessions,
    which last for minutes, would all be on one replica."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self._under_way: Counter[ReplicaID] = Counter()
        self._turns: Counter[ReplicaID] = Counter()
        self._count = count(1)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Returns them in the order in which they are tried."""
        ordered = sorted(candidate_replicas, key=lambda one: (self._under_way[one.replica_id], self._turns[one.replica_id]))
        if ordered:
            self._turns[ordered[0].replica_id] = next(self._count)
        return [[replica] for replica in ordered]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Counts a request that begins."""
        super().on_send_request(replica_id)
        self._under_way[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Counts one that has ended."""
        self._under_way[replica_id] = max(0, self._under_way[replica_id] - 1)
