"""The tensor interface of a graph: names, types and shapes of its inputs and outputs, in one form for every runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

F32, F16, I32, I64 = "float32", "float16", "int32", "int64"


@dataclass(frozen=True)
class Tensor:
    """Type and shape of one tensor. dtype: numpy's name of it; shape: a number for each dimension, None where it is dynamic."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"

    def of(self, *sizes: int) -> tuple[int, ...]:
        """Returns the shape with `sizes` in place of its dynamic dimensions, in order."""
        given = iter(sizes)
        return tuple(next(given) if size is None else size for size in self.shape)


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a graph, and the variables that a runtime keeps between two calls, by name, in the graph's order."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    states: Mapping[str, Tensor] = field(default_factory=dict)


def differences(graph: str, expected: Interface, found: Interface, optional: Collection[str] = ()) -> Iterator[str]:
    """Yields one text for each tensor that is expected or found: "" where both are the same, else what differs.

    graph: the graph's name, for the texts; optional: names of tensors that may be absent.
    """
    for side in ("inputs", "outputs", "states"):
        required, present = getattr(expected, side), getattr(found, side)
        what = f"{graph}: {side.removesuffix('s')}"
        for name in sorted(set(present) - set(required)):
            yield f"{graph}: unknown {side.removesuffix('s')} {name}"
        for name, tensor in required.items():
            if name in present:
                yield difference(f"{what} {name}", tensor, present[name])
            elif name not in optional:
                yield f"{what} {name} is absent"


def difference(what: str, expected: object, found: object) -> str:
    """Returns a text with both values, or "" where they are equal."""
    return "" if expected == found else f"{what}: expected {expected}, found {found}"
