"""Runs the server as replicas on a cluster of Ray until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemoport.errors import NemoportError, UsageError, first_line
from nemoport.ray_cluster import is_started_here, join
from nemoport.runtime import check_installed
from nemoport.server.access import LOOPBACK, Access
from nemoport.server.limits import Limits
from nemoport.server.models import Opening
from nemoport.server.replica import Board, Replica, unpacked
from nemoport.server.run import OTHERS, address_of, check_reach, on_signal
from nemoport.text import clipped

MODULES = ("ray", "aiohttp_cors")  # aiohttp_cors: of ray[serve], not of ray
APPLICATION, BOARD = "nemoport", "board"
_POLL_S, _START_S, _DEPLOYS = 0.2, 60.0, ("NOT_STARTED", "DEPLOYING")
_QUIET = {"log_level": "ERROR", "enable_access_log": False}


@dataclass(frozen=True)
class Cluster:
    """address: of a running cluster, by default RAY_ADDRESS, else Ray is started on this machine; replicas: of the server."""

    address: str | None = None
    replicas: int = 1


def serve_on_ray(
    openings: Sequence[Opening],
    host: str,
    port: int,
    limits: Limits,
    cluster: Cluster,
    token: str | None = None,
    origins: Sequence[str] = (),
    ready: Callable[[str], None] = print,
    *,
    is_open: bool = False,
) -> None:
    """Serves until a signal ends it. ready: is called with the address once every replica takes sessions. Raises UsageError: no
    cluster, a package that a node does not have, an address that Serve does not have on this cluster."""
    check_installed("The engine ray", MODULES, "ray")
    check_reach(host, token, is_open=is_open)
    if port == 0:
        todo = "name one with --port"
        raise UsageError("Ray Serve chooses no port.", expected="a port above 0", found="0", todo=todo)
    openings = [_placed(opening) for opening in openings]
    cpus = sum(opening.workers * opening.threads for opening in openings)
    ray, is_own = join(cluster.address, cpus * cluster.replicas)
    try:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        had_serve = _start(serve, host, port)
        ended = threading.Event()
        with on_signal(ended.set):
            try:
                _check_place(serve, host, port)
                access = Access(token, origins, host)
                _deploy(serve, _application(serve, openings, access, limits, cluster.replicas, cpus))
                try:
                    if _runs(serve, ended):
                        ready(address_of(host, port))
                        ended.wait()
                        _drain(serve, limits)
                finally:
                    serve.delete(APPLICATION)
            finally:
                with suppress(Exception):  # the cluster is lost
                    if not (had_serve or is_started_here(cluster.address) or serve.status().applications):
                        serve.shutdown()
    finally:
        if is_own:
            ray.shutdown()


def _start(serve: Any, host: str, port: int) -> bool:
    """Starts Serve where none runs. Returns whether one does. Raises UsageError.

    It is tried for a minute: on a busy machine a proxy takes longer than Serve waits for it, and a command before may be ending
    Serve."""
    # On loopback one proxy, of the head node; else one on each node that has a replica.
    where, end_s = "HeadOnly" if host in LOOPBACK else "EveryNode", time.monotonic() + _START_S
    had_serve: bool | None = None
    while True:
        try:
            if had_serve is None:
                had_serve = _client() is not None
            serve.start(proxy_location=where, http_options={"host": host, "port": port}, logging_config=_QUIET)
            serve.status()
            return had_serve
        except Exception as error:  # RayActorError, RayServeException
            if time.monotonic() > end_s:
                raise _failed(first_line(error)) from error
        time.sleep(1)


def _placed(opening: Opening) -> Opening:
    """Returns how each node opens a package: by the same path, or from the Hub. A thread, not all of a node, which has others."""
    path = Path(opening.package).expanduser()
    package = str(path.absolute()) if path.exists() else opening.package
    return replace(opening, package=package, threads=max(1, opening.threads))


def _application(serve: Any, openings: Sequence[Opening], access: Access, limits: Limits, replicas: int, cpus: int) -> Any:
    board = serve.deployment(Board).options(name=BOARD, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
    replica = serve.deployment(serve.ingress()(Replica)).options(
        name="replica",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=limits.sessions + limits.uploads + OTHERS,
        max_queued_requests=OTHERS,
        request_router_config={"request_router_class": "nemoport.server.balance:FewestRequests"},
        graceful_shutdown_timeout_s=limits.drain_s + limits.send_s,
        graceful_shutdown_wait_loop_s=_POLL_S,
        health_check_period_s=2.0,
        max_constructor_retry_count=1,
    )
    return replica.bind(openings, access, limits, board.bind())


def _client() -> Any:
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False)


def _check_place(serve: Any, host: str, port: int) -> None:
    """Raises UsageError where Serve already runs on the cluster and listens elsewhere, or has an application of ours."""
    found = _client().http_config
    if (found.host, found.port) != (host, port):
        expected, todo = f"{host} port {port}", "name these with --host and --port, or end Serve: serve shutdown"
        what = "Ray Serve listens elsewhere on this cluster."
        raise UsageError(what, expected=expected, found=f"{found.host} port {found.port}", todo=todo)
    if APPLICATION in serve.status().applications:
        todo = f"end it, or what a killed command left: python -c 'from ray import serve; serve.delete(\"{APPLICATION}\")'"
        raise UsageError("This cluster serves already.", expected="no application nemoport", found="one", todo=todo)


def _deploy(serve: Any, application: Any) -> None:
    target = serve.RunTarget(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except Exception as error:  # RayServeException, RayActorError, RuntimeError, ValueError
        raise _failed(first_line(error)) from error


def _runs(serve: Any, ended: threading.Event) -> bool:
    """Waits until every replica takes sessions. Returns False where a signal comes first."""
    while not ended.wait(_POLL_S):
        if (state := serve.status().applications.get(APPLICATION)) is None:
            raise _failed("somebody deleted them")
        if state.status == "RUNNING":
            return True
        if state.status not in _DEPLOYS:
            texts = [state.message, *(one.message for one in state.deployments.values())]
            raise next(filter(None, map(unpacked, texts)), None) or _failed(" ".join(texts)[-500:])
    return False


def _failed(found: str) -> NemoportError:
    todo = "see that each node has the same nemoport with its extra ray; `ray serve status` and Ray's logs say more"
    return UsageError("The replicas do not start.", expected="replicas that run", found=clipped(found, 500), todo=todo)


def _drain(serve: Any, limits: Limits) -> None:
    """Has all replicas drain, and waits until they have."""
    end_s = time.monotonic() + limits.drain_s + limits.send_s
    board = serve.get_deployment_handle(BOARD, APPLICATION)
    while time.monotonic() < end_s:
        with suppress(Exception):  # the board's node is lost: Serve starts it anew, and it is asked again
            if board.end.remote().result(timeout_s=5) == 0:
                return
        time.sleep(_POLL_S)
