"""One file per gate: its `run(context)` returns results. A file that is here is a gate; there is no second list."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from nemoport.errors import UsageError
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, GateResult


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def run_gate(name: str, context: Context) -> list[GateResult]:
    """At least one result, stamped. Whatever goes wrong in a gate is a fail with its evidence. Raises UsageError for no gate."""
    if name not in names():
        raise UsageError(
            f"There is no gate {name!r}.", expected=f"one of {', '.join(names())}", found=name, todo="mend gates.toml"
        )
    try:
        results = import_module(f"{__name__}.{name}").run(context)
        results = results or [_failed(name, context, "the gate judged nothing")]
    except Exception as error:  # any at all: a gate that cannot judge has not passed
        results = [_failed(name, context, f"{type(error).__name__}: {error}")]
    return [context.stamp(result) for result in results]


def _failed(name: str, context: Context, evidence: str) -> GateResult:
    try:
        sha256 = context.sha256
    except Exception:  # nothing there to hash; the evidence tells
        sha256 = ""
    return GateResult(name, context.variant, sha256, FAIL, evidence=" ".join(evidence.split()))
