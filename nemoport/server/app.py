"""What a server has opened, who may use it, and how it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from nemoport.errors import NemoportError, UsageError
from nemoport.server.access import SUBPROTOCOL, Access
from nemoport.server.connection import Connection
from nemoport.server.files import Transcriptions
from nemoport.server.limits import Limits
from nemoport.server.metrics import Metrics, as_text
from nemoport.server.models import Models
from nemoport.server.native import error_fields
from nemoport.server.wire import Wire

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.websockets import WebSocket


class Server:
    """What is opened, and the connections."""

    def __init__(self, models: Models, access: Access, limits: Limits, metrics: Metrics):
        self.models, self.access, self.limits, self.metrics = models, access, limits, metrics
        self.transcriptions = Transcriptions(models, limits)
        self.connections: set[Connection] = set()
        self.is_draining = False

    async def drain(self) -> None:
        """Takes no new session, lets those that run finish for `drain_s`, and then ends them: what they sent is transcribed."""
        self.is_draining = True
        for connection in self.connections:
            connection.notify(self.limits.drain_s)
        await self._until_empty(self.limits.drain_s)
        for connection in self.connections:
            connection.finish()
        self.transcriptions.end()
        await self._until_empty(self.limits.send_s)

    async def _until_empty(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (self.connections or self.transcriptions.is_busy) and loop.time() < end:
            await asyncio.sleep(0.05)

    def refusal(self) -> tuple[int, NemoportError] | None:
        """Returns why there can be no session now, with the HTTP status."""
        if self.is_draining:
            return 503, UsageError("The server ends.", expected="a server that runs", found="its end", todo="connect again")
        if len(self.connections) >= self.limits.sessions:
            expected = f"at most {self.limits.sessions} sessions"
            return 503, UsageError("The server is full.", expected=expected, found="as many", todo="try again later")
        return None

    async def readiness(self) -> tuple[int, NemoportError] | None:
        """Returns the same for whoever asks whether to send sessions here."""
        return self.refusal()

    async def figures(self) -> bytes:
        """Returns the figures for Prometheus."""
        return as_text({"": self.metrics.families()})

    async def serve(self, socket: WebSocket, wire: Wire, id: str) -> None:
        """Serves one WebSocket."""
        if refused := self.refusal():
            await socket.send_denial_response(error_response(*refused))
            self.metrics.closed.labels("full").inc()
            return
        offered = socket.scope.get("subprotocols") or []
        chosen = next((name for name in offered if not name.startswith(SUBPROTOCOL)), None)
        connection = Connection(socket, wire, self.models, self.limits, self.metrics, id)
        self.connections.add(connection)
        try:
            await socket.accept(chosen)
            self.metrics.closed.labels(await connection.run()).inc()
        finally:
            self.connections.discard(connection)


def error_response(status: int, error: NemoportError) -> Response:
    """Returns an error as OpenAI's clients read it, with its sentences beside."""
    from starlette.responses import JSONResponse

    kind = {401: "authentication_error", 403: "permission_error", 503: "server_error"}.get(status, "invalid_request_error")
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "5"}}.get(status)
    return JSONResponse({"error": error_fields(error) | {"type": kind, "code": status}}, status, headers)


class Gate:
    """Asks `Access` about every request, and bounds what a request may send."""

    def __init__(self, app: Any, server: Server):
        self._app, self._server = app, server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        if refused := self._server.access.refusal(scope["path"], scope["headers"]):
            response = error_response(*refused)
            if scope["type"] == "http":
                return await response(scope, receive, send)
            from starlette.websockets import WebSocket

            return await WebSocket(scope, receive, send).send_denial_response(response)
        await self._app(scope, receive if scope["type"] == "websocket" else self._bounded(receive), send)

    def _bounded(self, receive: Any) -> Any:
        count = 0

        async def bounded() -> Any:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self._server.limits.upload_bytes:
                raise TooLarge
            return message

        return bounded


class TooLarge(Exception):
    """A request is longer than it may be."""
