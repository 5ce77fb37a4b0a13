"""Runs a server on this machine until SIGTERM or Ctrl-C: then no session begins, and those that run finish in their time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket as sockets
import sys
from collections.abc import Callable, Sequence

from nemoport.errors import UsageError
from nemoport.runtime import check_installed
from nemoport.server.access import LOOPBACK, Access
from nemoport.server.app import Server
from nemoport.server.limits import Limits
from nemoport.server.metrics import Metrics
from nemoport.server.models import Models, Opening
from nemoport.server.paths import make_app

MODULES = ("fastapi", "uvicorn", "websockets", "python_multipart", "prometheus_client")
_BACKLOG = 1024
OTHERS = 64  # connections besides sessions and recordings; more are answered with 503
SWITCH_S = 0.001  # in which a thread of Python gives way: the event loop waits for the threads of the batchers


def check_serving(host: str, token: str | None, *, is_open: bool = False) -> None:
    """Raises UsageError where packages are missing, and for an address that others reach without a token."""
    check_installed("The server", MODULES, "serve")
    check_reach(host, token, is_open=is_open)


def check_reach(host: str, token: str | None, *, is_open: bool) -> None:
    """Raises UsageError for an address that others reach without a token."""
    if host not in LOOPBACK and not token and not is_open:
        raise UsageError(
            f"{host} is reached from other machines.",
            expected="a token (--token-file FILE), or --open where a proxy in front asks for one",
            found="neither",
            todo="name one, or stay on 127.0.0.1",
        )


def serve(
    openings: Sequence[Opening],
    host: str,
    port: int,
    limits: Limits,
    token: str | None = None,
    origins: Sequence[str] = (),
    ready: Callable[[str], None] = print,
) -> None:
    """Serves until a signal ends it. ready: is called with the address once sessions can begin. Raises ArtifactError, UsageError,
    as `check_serving` too."""
    sys.setswitchinterval(SWITCH_S)
    metrics = Metrics()
    listening = _listening(host, port)
    try:
        models = Models(openings, limits, metrics)
        server = Server(models, Access(token, origins, host), limits, metrics)
        address = address_of(host, listening.getsockname()[1])
        try:
            asyncio.run(_serve(server, listening, lambda: ready(address)))
        finally:
            models.end()
    finally:
        listening.close()


def address_of(host: str, port: int) -> str:
    """Returns the URL of a server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _listening(host: str, port: int) -> sockets.socket:
    """Returns a socket that is bound, before minutes go by for a model. Raises UsageError."""
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    listening = sockets.socket(family)
    listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        todo = "choose another --port, or 0 for any that is free"
        what = f"{host} port {port} cannot be used."
        raise UsageError(what, expected="a free port of this machine", found=str(error), todo=todo) from error
    return listening


async def serve_until(ended: asyncio.Event, server: Server, listening: sockets.socket, ready: Callable[[], None]) -> None:
    """Serves on a bound socket until `ended`, and then drains. ready: is called once sessions can begin."""
    import uvicorn

    class Uvicorn(uvicorn.Server):
        """Leaves signals alone: uvicorn would close every WebSocket at once."""

        @contextlib.contextmanager
        def capture_signals(self):
            yield

    config = uvicorn.Config(
        make_app(server),
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=server.limits.message_bytes,
        ws_per_message_deflate=False,
        # The answer to a ping waits behind audio that is sent ahead of real time and not read yet. --idle ends who is gone.
        ws_ping_interval=None,
        backlog=_BACKLOG,
        limit_concurrency=server.limits.sessions + server.limits.uploads + OTHERS,
        timeout_graceful_shutdown=5,
    )
    serving = Uvicorn(config)
    task = asyncio.create_task(serving.serve([listening]))
    while not serving.started and not task.done():
        await asyncio.sleep(0.01)
    if serving.started:
        ready()
    ending = asyncio.create_task(ended.wait())
    await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not task.done():
        await server.drain()
        serving.should_exit = True
    await task


async def _serve(server: Server, listening: sockets.socket, ready: Callable[[], None]) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    with on_signal(lambda: loop.call_soon_threadsafe(ended.set)):
        await serve_until(ended, server, listening, ready)


@contextlib.contextmanager
def on_signal(end: Callable[[], object]):
    """Calls `end` where SIGTERM or Ctrl-C comes first. A second one ends the process as ever. Does nothing outside of
    the main thread."""
    before = {}

    def first(number: int, frame: object) -> None:
        for one, handler in before.items():
            signal.signal(one, handler)
        end()

    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, first)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in before.items():
                signal.signal(number, handler)
