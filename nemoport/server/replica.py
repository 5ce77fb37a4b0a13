"""A server as one of several replicas of Ray Serve, and the board over which they know of each other.

Serve's proxies carry requests and WebSockets to the replicas. A session lives on one replica, with its weights, batches
and limits. `/ready`, `/metrics` and the end of all replicas are of all of them: each reports to the board, which is a deployment
of the same application, so that Serve starts it anew where its node is lost.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nemoport.errors import NemoportError, UsageError
from nemoport.runtime import check_installed
from nemoport.server.access import Access
from nemoport.server.app import Server
from nemoport.server.connection import POLICY, Refused
from nemoport.server.limits import Limits
from nemoport.server.metrics import Metrics, as_text
from nemoport.server.models import Models, Opening
from nemoport.server.paths import make_app
from nemoport.server.run import MODULES, SWITCH_S
from nemoport.text import clipped

REPORT_S, FRESH_S, ANSWER_S = 0.5, 5.0, 1.0  # between reports; that a report counts; in which the board answers
_MARK = "nemoport-error:"  # before an error within what Serve says of a replica that does not start


@dataclass(frozen=True)
class Report:
    """What a replica reports of itself. is_ready: a session can begin; has_ended: all of its sessions have, and none begins;
    families: its figures."""

    replica: str
    is_ready: bool
    has_ended: bool
    families: Sequence[Any]


class Board:
    """The reports of all replicas, and whether they are to end."""

    def __init__(self):
        self._reports: dict[str, tuple[float, Report]] = {}
        self._ends = False

    async def report(self, report: Report) -> bool:
        """Takes a report. Returns whether the replica is to drain."""
        self._reports[report.replica] = (time.monotonic(), report)
        return self._ends

    async def reports(self) -> list[Report]:
        """Returns the last report of each replica that still reports."""
        since = time.monotonic() - FRESH_S
        self._reports = {name: one for name, one in self._reports.items() if one[0] > since}
        return [report for _, report in self._reports.values()]

    async def end(self) -> int:
        """Has all replicas drain. Returns how many have not yet."""
        self._ends = True
        return sum(not report.has_ended for report in await self.reports())


class ReplicaServer(Server):
    """The server of one replica."""

    def __init__(self, name: str, board: Any, models: Models, access: Access, limits: Limits, metrics: Metrics):
        """board: a handle of the board."""
        super().__init__(models, access, limits, metrics)
        self._name, self._board, self._has_ended = name, board, False

    async def readiness(self) -> tuple[int, NemoportError] | None:
        """Returns why no replica takes a session now, with the HTTP status."""
        refused = self.refusal()
        return None if refused and any(report.is_ready for report in await self._others()) else refused

    async def figures(self) -> bytes:
        """Returns the figures of all replicas, each with its name."""
        found = {report.replica: report.families for report in await self._others()}
        return as_text(found | {self._name: self.metrics.families()})

    async def _others(self) -> list[Report]:
        try:
            async with asyncio.timeout(ANSWER_S):
                return [report for report in await self._board.reports.remote() if report.replica != self._name]
        except Exception:  # the board's node is lost, and Serve starts it anew: this replica answers for itself
            return []

    async def report_on(self) -> None:
        """Reports for ever, and drains once where the board says so."""
        draining = None
        while True:
            report = Report(self._name, self.refusal() is None, self._has_ended, self.metrics.families())
            with suppress(Exception):  # as above
                async with asyncio.timeout(FRESH_S):
                    if await self._board.report.remote(report) and not draining:
                        draining = asyncio.create_task(self._drain())
            await asyncio.sleep(REPORT_S)

    async def _drain(self) -> None:
        await self.drain()
        self._has_ended = True


class Replica:
    """The deployment."""

    def __init__(self, openings: Sequence[Opening], access: Access, limits: Limits, board: Any):
        """Opens the packages, which must be on this node. Raises RuntimeError that holds a NemoportError, see `packed`."""
        from ray import serve, util

        sys.setswitchinterval(SWITCH_S)
        self._name, self._board = serve.get_replica_context().replica_id.unique_id, board
        self._access, self._limits, self._metrics = access, limits, Metrics()
        try:
            check_installed("The server", MODULES, "ray")
            self._models = Models(openings, limits, self._metrics)
        except NemoportError as error:
            raise RuntimeError(packed(error, util.get_node_ip_address())) from None

    async def __serve_build_asgi_app__(self) -> Any:
        """Returns the application. Serve calls it in the loop that runs it."""
        server = ReplicaServer(self._name, self._board, self._models, self._access, self._limits, self._metrics)
        self._reporting = asyncio.create_task(server.report_on())
        return Bounded(make_app(server), self._limits)

    def check_health(self) -> None:
        """Raises RuntimeError where a thread of a model has ended: Serve replaces the replica."""
        if not self._models.are_alive:
            raise RuntimeError("a thread that runs batches has ended")


class Bounded:
    """Ends a WebSocket whose client sends more than is read. Serve's proxies read all that a client sends, whatever the replica
    reads, so that a client that is too fast is not slowed, and what waits would grow without end."""

    def __init__(self, app: Any, limits: Limits):
        self._app, self._most = app, limits.unread_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return await self._app(scope, receive, send)
        waiting: asyncio.Queue[Any] = asyncio.Queue()
        unread, is_over = 0, False

        async def pump() -> None:
            nonlocal unread, is_over
            while not is_over:
                try:
                    message = await receive()
                except Exception as error:
                    message = error
                unread += _bytes(message)
                is_over = unread > self._most
                waiting.put_nowait(message)
                if isinstance(message, Exception) or message["type"] == "websocket.disconnect":
                    return

        async def bounded() -> Any:
            nonlocal unread
            message = await waiting.get()
            if is_over:
                todo, expected = "send as the audio comes", f"at most {self._most} bytes that are not read yet"
                error = UsageError("The client is too fast.", expected=expected, found="more", todo=todo)
                raise Refused(error, POLICY, "too fast")
            if isinstance(message, Exception):
                raise message
            unread -= _bytes(message)
            return message

        pumping = asyncio.create_task(pump())
        try:
            await self._app(scope, bounded, send)
        finally:
            pumping.cancel()


def _bytes(message: Any) -> int:
    return 100 + sum(len(message.get(name) or b"") for name in ("bytes", "text")) if isinstance(message, dict) else 0


def packed(error: NemoportError, node: str) -> str:
    """Returns an error as a part of a text that others write."""
    fields = (error.what, error.expected, f"{error.found} (on {node})", error.todo)
    return _MARK + base64.b64encode(json.dumps([clipped(one, 1000) for one in fields]).encode()).decode() + "."


def unpacked(text: str) -> UsageError | None:
    """Returns the error in a text, or None."""
    found = re.search(rf"{_MARK}([\w+/=]+)\.", text)
    if not found:
        return None
    what, expected, found, todo = json.loads(base64.b64decode(found[1]))
    return UsageError(what, expected=expected, found=found, todo=todo)
