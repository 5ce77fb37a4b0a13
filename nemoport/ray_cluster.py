"""Joins a cluster of Ray, or starts Ray on this machine alone."""

from __future__ import annotations

import logging
import os
from typing import Any

from nemoport.errors import UsageError, first_line
from nemoport.text import clipped

LOOPBACK, LOCAL = "127.0.0.1", "local"


def stay_on_loopback() -> None:
    """Keeps what Ray starts in this process, and its connection, on the loopback interface. To be called before `import ray`:
    otherwise Ray takes 127.0.0.1 for the machine's address in the network, and listens there, for whoever sends it code."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def is_started_here(address: str | None) -> bool:
    """Whether Ray is started by this process: no cluster is named."""
    return (address or os.environ.get("RAY_ADDRESS") or LOCAL) == LOCAL


def join(address: str | None, cpus: int | None = None) -> tuple[Any, bool]:
    """Returns Ray, and whether it was started or joined here, so that the caller shuts it down.

    address: of a running cluster, by default RAY_ADDRESS; where neither is set, Ray is started on this machine alone, on the
    loopback interface, with `cpus`. Raises UsageError where no cluster is there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports its use to its makers
    address, is_local = address or os.environ.get("RAY_ADDRESS") or LOCAL, is_started_here(address)
    if is_local or address.startswith((LOOPBACK, "localhost")):
        stay_on_loopback()
    import ray

    if ray.is_initialized():
        return ray, False
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if is_local else {}
    try:
        ray.init(address=address, **own, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError: what Ray raises differs between versions
        expected, found = "the address of a cluster, such as 10.0.0.1:6379", clipped(first_line(error), 500)
        todo = "start one: ray start --head on one machine, ray start --address=... on the others"
        raise UsageError("Ray cannot be reached.", expected=expected, found=found, todo=todo) from error
    return ray, True
