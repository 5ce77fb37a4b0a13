"""The gates: each module in this folder is one, and its `run(context)` returns results. There is no other list of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.errors import OutputError, UsageError
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, GateResult


def names() -> list[str]:
    """Names of all gates, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def run_gate(name: str, context: Context) -> list[GateResult]:
    """Runs a gate; returns at least one result, stamped. Any error in it is a fail with the error as evidence.

    Raises UsageError for a name that no gate has, OutputError where the disk is full.
    """
    if name not in names():
        raise UsageError(
            f"There is no gate {name!r}.", expected=f"one of {', '.join(names())}", found=name, todo="mend gates.toml"
        )
    try:
        results = import_module(f"{__name__}.{name}").run(context)
        results = results or [_failed(name, context, "the gate judged nothing")]
    except OutputError:  # a full disk is no fault of the variant
        raise
    except Exception as error:  # any at all: a gate that cannot judge has not passed
        results = [_failed(name, context, f"{type(error).__name__}: {error}")]
    return [context.stamp(result) for result in results]


def _failed(name: str, context: Context, evidence: str) -> GateResult:
    try:
        sha256 = context.sha256
    except Exception:  # no artifact to hash; the evidence has the reason
        sha256 = ""
    return GateResult(name, context.variant, sha256, FAIL, evidence=" ".join(evidence.split()))
