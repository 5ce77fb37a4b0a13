"""Whether a dataclass holds what its annotations state: a reader that accepts a text in place of a number hands the fault on."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check_types(value: Any, finite: bool = True) -> None:
    """Raises AssertionError for a field that has another type than its annotation, in a dataclass and in those within; a bool is
    no number. finite: whether every number must be."""
    hints = _hints(type(value))
    for field in fields(value):
        found = getattr(value, field.name)
        assert _fits(found, hints[field.name], finite), f"{type(value).__name__}.{field.name} is {found!r:.100}, not {field.type}"


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, kind: Any, finite: bool) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one, finite) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(one, arguments[0], finite) for one in value)
        return len(value) == len(arguments) and all(_fits(one, of, finite) for one, of in zip(value, arguments, strict=True))
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(
            _fits(k, arguments[0], finite) and _fits(v, arguments[1], finite) for k, v in value.items()
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and (not finite or math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_dataclass(kind) and isinstance(value, kind):
        check_types(value, finite)
    return isinstance(value, kind or type(None))
