"""Reads gates.toml: which gates a variant must pass, and within which limits."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemoport.artifact import ONNXRUNTIME
from nemoport.cache_layout import KV, NEMO, cache_layout_of, variant_of
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.files import sha256_file
from nemoport.text import clipped
from nemoport.variant import FP32

LIMITS_FILE = Path(__file__).with_name("gates.toml")
GATES = frozenset(path.stem for path in Path(__file__).with_name("gates").glob("[!_]*.py"))  # importing them is heavy
KEYS = {"like": str, "target": str, "required": list, "streams": int}
MOST_LIMIT = 1e15  # of a figure
MOST_VARIANTS, MOST_LIKES = 1000, 20  # tables, and links of a chain of `like`


@dataclass(frozen=True)
class GateLimits:
    """One gate's limits by name, and the reason for them."""

    values: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Limits:
    """The gates and limits of one variant. streams: utterances that are run at once over the corpus; target: its runtime."""

    variant: str
    required: tuple[str, ...]
    streams: int
    gates: Mapping[str, GateLimits]
    target: str = ONNXRUNTIME

    @property
    def fp32(self) -> str:
        """Name of the variant in full precision that this one is compared with: of the same target and cache layout."""
        return variant_of(cache_layout_of(self.variant), FP32) if self.target == ONNXRUNTIME else f"{self.target}-{FP32}"

    def get(self, gate: str, name: str) -> float:
        """Returns a limit. Raises UsageError if gates.toml does not state it: without one, nothing would be judged."""
        try:
            return self.gates[gate].values[name]
        except KeyError as error:
            raise UsageError(
                f"gates.toml states no {name} for {self.variant}.",
                expected=f"{name} = ... in [{self.variant}.{gate}], or in the table that it inherits",
                found="none",
                todo="state the limit and its reason",
            ) from error

    def override(self, gate: str, **values: float) -> Limits:
        """A copy with other values for some limits of one gate, for tests and benchmarks. Raises UsageError as `get`."""
        for name in values:
            self.get(gate, name)
        found = self.gates[gate]
        return replace(self, gates={**self.gates, gate: replace(found, values={**found.values, **values})})


def read_limits(path: Path = LIMITS_FILE) -> dict[str, Limits]:
    """Reads the limits of every variant: variant -> limits, in the file's order.

    First the variants of onnxruntime, then the same with kv caches, which have the same limits, then those of other targets.
    Raises ArtifactError, with all problems of a kind at once, for an unknown key; for a `like` that names no variant or leads
    back to its own; for `required` or `streams` neither stated nor inherited; for limits without a reason.
    """
    raw = _read(path)
    _check_keys(raw, path)
    _check_likes(raw, path)
    found = {variant: _resolve(variant, raw) for variant in raw}
    _check_reasons(raw, found, path)
    ours = [limits for limits in found.values() if limits.target == ONNXRUNTIME]
    others = [limits for limits in found.values() if limits.target != ONNXRUNTIME]
    both = [replace(limits, variant=variant_of(layout, limits.variant)) for layout in (NEMO, KV) for limits in ours]
    return {limits.variant: limits for limits in (*both, *others)}


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        if len(raw) > MOST_VARIANTS:
            raise ValueError(f"{len(raw)} tables, more than {MOST_VARIANTS}")
        return raw
    except (OSError, ValueError, RecursionError) as error:  # tomllib's own error is a ValueError
        raise ArtifactError(
            f"{path} cannot be read.",
            expected="TOML",
            found=f"{type(error).__name__}: {clipped(first_line(error))}",
            todo="mend it",
        ) from error


def limits_of(variant: str, path: Path = LIMITS_FILE) -> Limits:
    """Reads the limits of one variant. Raises UsageError if it has no table."""
    every = read_limits(path)
    if variant not in every:
        raise UsageError(
            f"There are no gates for the variant {variant!r}.",
            expected=f"one of {', '.join(every)}",
            found=variant,
            todo=f"choose one of these, or add a [{variant}] table to {path}",
        )
    return every[variant]


def limits_digest(path: Path = LIMITS_FILE) -> str:
    """Digest of the file, which results are stamped with."""
    return sha256_file(path)


def _resolve(variant: str, raw: dict[str, Any]) -> Limits:
    """Limits of a variant, each from the nearest table along its chain of `like`. A gate's reason is "" where none is stated
    and its limits are not the inherited ones."""
    stated = raw[variant]
    parent = _resolve(stated["like"], raw) if "like" in stated else Limits(variant, (), 0, {})
    gates = dict(parent.gates)
    for gate, table in _tables(stated).items():
        inherited = gates.get(gate, GateLimits({}, ""))
        own = {name: float(value) for name, value in table.items() if name != "reason"}
        values = {**inherited.values, **own}
        gates[gate] = GateLimits(values, table.get("reason", inherited.reason if values == inherited.values else ""))
    required, streams = stated.get("required", parent.required), stated.get("streams", parent.streams)
    return Limits(variant, tuple(required), streams, gates, stated.get("target", parent.target))


def _tables(stated: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of gates in a variant's table: gate -> its limits and their reason."""
    return {key: value for key, value in stated.items() if key not in KEYS}


def _check_keys(raw: dict[str, Any], path: Path) -> None:
    problems = [problem for variant, stated in raw.items() for problem in _problems(variant, stated)]
    if problems:
        raise ArtifactError(
            f"{path} states what cannot be read.",
            expected=f"for a variant {', '.join(KEYS)} (required and streams unless `like` brings them) and tables of the gates "
            f"{', '.join(sorted(GATES))}; for a gate numbers and a reason",
            found="; ".join(problems),
            todo="mend these keys",
        )


def _problems(variant: str, stated: Any) -> Iterator[str]:
    if not isinstance(stated, dict):
        yield f"{variant} outside of a table"
        return
    yield from (f"no {key} in [{variant}]" for key in ("required", "streams") if key not in stated and "like" not in stated)
    wrong = [key for key, kind in KEYS.items() if key in stated and not _is(stated[key], kind)]
    yield from (f"{key} = {stated[key]!r} in [{variant}]" for key in wrong)
    for gate, table in _tables(stated).items():
        if gate not in GATES or not isinstance(table, dict):
            yield f"unknown key {gate} in [{variant}]"
            continue
        for name, value in table.items():
            if not (isinstance(value, str) if name == "reason" else _is_number(value)):
                yield f"{name} = {value!r} in [{variant}.{gate}]"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MOST_LIMIT  # which NaN is not


def _is(value: Any, kind: type) -> bool:
    """Whether a value has the type of its key: a list is one of names, a number is 1 or more."""
    if type(value) is not kind:
        return False
    return value >= 1 if kind is int else all(isinstance(one, str) for one in value)


def _check_likes(raw: dict[str, Any], path: Path) -> None:
    for variant in raw:
        chain = [variant]
        while (like := raw[chain[-1]].get("like")) is not None:
            if like not in raw or like in chain or len(chain) > MOST_LIKES:
                raise ArtifactError(
                    f"{path} names a variant to inherit from that cannot be.",
                    expected=f"in `like` one of {', '.join(raw)}, that does not inherit from [{variant}] itself",
                    found=clipped(" -> ".join([*chain, like])),
                    todo=f"mend like = {like!r} in [{chain[-1]}]",
                )
            chain.append(like)


def _check_reasons(raw: dict[str, Any], found: dict[str, Limits], path: Path) -> None:
    missing = [f"[{v}.{gate}]" for v, stated in raw.items() for gate in _tables(stated) if not found[v].gates[gate].reason]
    if missing:
        raise ArtifactError(
            f"{path} states limits without their reasons.",
            expected='reason = "..." in every table that states a limit which it does not inherit',
            found=f"none in {', '.join(missing)}",
            todo="write down why each limit is what it is",
        )
