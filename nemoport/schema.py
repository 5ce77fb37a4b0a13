"""The values of JSON files that are read from a build or a package: types with bounds, and one check.

A package may come from a stranger, and every number of it becomes a size or a loop. Dataclasses and TypedDicts state the bounds
of their fields with the functions here, as `Annotated[int, whole(1, 256)]`; `json_schema` writes what is in docs/schemas/.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from nemoport.errors import ArtifactError
from nemoport.text import clipped, has_controls

CLOSED = ConfigDict(extra="forbid")  # `__pydantic_config__` of a dataclass all of whose keys are known
MOST_PROBLEMS = 3  # that an error names
MOST_BYTES = 2**50
LONGEST_TEXT = 10_000


def whole(low: int, high: int) -> Any:
    """Bounds of an int, inclusive; a bool or a float is none."""
    return Field(strict=True, ge=low, le=high)


def real(low: float, high: float) -> Any:
    """Bounds of a float, inclusive, which NaN does not meet."""
    return Field(strict=True, ge=low, le=high)


def most(items: int, least: int = 0) -> Any:
    """Bounds of the length of a list, a tuple or a dict."""
    return Field(min_length=least, max_length=items)


def _without_controls(text: str) -> str:
    if has_controls(text):
        raise ValueError("a text without control characters is expected")
    return text


def _relative(path: str) -> str:
    parts = path.split("/")
    if any(c in "\\:" or not c.isprintable() for c in path) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("a path of plain names below the folder is expected")
    return path


Text = Annotated[str, Field(strict=True, max_length=LONGEST_TEXT), AfterValidator(_without_controls)]
Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]  # of a variant, a runtime, a role
Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(strict=True, min_length=1, max_length=512), AfterValidator(_relative)]
Size = Annotated[int, whole(0, MOST_BYTES)]  # of a file, in bytes
Shape = Annotated[list[Annotated[int, whole(0, 1_000_000)]], most(8)]


def check(kind: Any, raw: object, what: str, todo: str) -> Any:
    """Returns a JSON value as the dataclass or TypedDict `kind`. what: the start of the error, a subject; todo: its advice.

    Raises ArtifactError that names the first values which have not their type or lie outside of their bounds.
    """
    try:
        return _adapter(kind).validate_python(raw)
    except ValidationError as error:
        found = [_problem(one) for one in error.errors()]
        more = f"; and {len(found) - MOST_PROBLEMS} more" if len(found) > MOST_PROBLEMS else ""
        raise ArtifactError(
            f"{what} holds values that it cannot have.",
            expected="those that nemoport writes, see docs/schemas/",
            found=clipped("; ".join(found[:MOST_PROBLEMS]), 600) + more,
            todo=todo,
        ) from error


def json_schema(kind: Any) -> dict:
    """Returns the JSON Schema (draft 2020-12) of a dataclass or TypedDict."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _adapter(kind).json_schema()


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _problem(one: Any) -> str:
    """Returns one of pydantic's errors in a line."""
    place = clipped(".".join(map(str, one["loc"])), 100) or "the whole"
    if one["type"] == "missing":
        return f"no {place}"
    return f"{place}: {one['msg']}, not {clipped(repr(one['input']), 60)}"
