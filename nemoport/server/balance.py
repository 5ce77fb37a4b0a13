"""Which replica of Ray Serve takes the next session. Serve's proxies import this module: it needs Ray."""

from __future__ import annotations

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class FewestRequests(FIFOMixin, RequestRouter):
    """The replica with the fewest sessions and requests under way. Serve's own router fills those of the proxy's node first: all
    sessions would be on one replica."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Returns all of them as equals: Serve takes the one with the shortest queue."""
        return [candidate_replicas]
