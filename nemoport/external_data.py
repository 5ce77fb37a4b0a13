"""The weights of an ONNX graph that are in files beside it: checked before any library opens the graph.

A graph may come from a stranger, and names the files that are read as its weights. Versions of onnxruntime differ in what
they refuse, and an installation that only runs graphs has no onnx. So the graph's bytes are walked here: fields of onnx.proto
that lead to a tensor, and of a tensor its place. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nemoport.errors import ArtifactError, first_line
from nemoport.text import clipped

Span = tuple[int, int]  # of bytes: the first, and the one behind the last
# Message -> number of a field -> the message in it. A field of _SINGLE occurs once: a second one would change the first.
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_SINGLE = {("model", 7), ("training", 1), ("training", 2), ("attribute", 5), ("attribute", 6), ("attribute", 22)}
_DIMS, _TYPE, _NAME, _PLACE, _WHERE = 1, 2, 8, 13, 14  # fields of a tensor; _PLACE repeats: key (1) and value (2)
_VALUES = (4, 5, 6, 7, 9, 10, 11)  # fields of a tensor that hold its values
_EXTERNAL = 1  # value of _WHERE
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MOST_LEVELS = 100  # protobuf's own
# Bits of an element by the number of its type; a string has none.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
_BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}
_LONGEST_NAME = 255  # bytes, of every file system
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True)
class Place:
    """Where the bytes of a weight are: file, in the graph's folder, offset and bytes. kind: the number of ONNX's type."""

    weight: str
    kind: int
    file: str
    offset: int
    bytes: int


def check_external_data(graph: Path) -> None:
    """Raises ArtifactError unless every weight of an ONNX graph that is in another file is within a plain file of the graph's
    folder, in a place of its own. Two weights may share all of a place."""
    places = external_places(graph)
    wrong = []
    for name in sorted({place.file for place in places}):
        path, needed = graph.parent / name, max(p.offset + p.bytes for p in places if p.file == name)
        if path.is_symlink():
            wrong.append(f"{name}: a link")
        elif not path.is_file():
            wrong.append(f"{name}: missing")
        elif path.stat().st_size < needed:
            wrong.append(f"{name}: {path.stat().st_size} bytes, {needed} needed")
    ordered = sorted({(p.file, p.offset, p.offset + p.bytes) for p in places if p.bytes})
    wrong += [
        f"{file}: weights overlap at byte {start}"
        for (before, _, end), (file, start, _) in zip(ordered, ordered[1:], strict=False)
        if file == before and start < end
    ]
    if wrong:
        raise ArtifactError(
            f"The weights of {graph} are not all there.",
            expected=f"{', '.join(sorted({place.file for place in places}))} beside it, whole",
            found=clipped("; ".join(wrong), 1000),
            todo="download or build it again, and keep the files' names",
        )


def external_places(graph: Path) -> list[Place]:
    """Reads the places of an ONNX graph's weights in other files, in the graph's order.

    Raises ArtifactError for a file that is no ONNX graph, for a weight that names no file of the graph's folder, and for a place
    that cannot be one of its bytes.
    """
    try:
        with open(graph, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [place for span in tensor_spans(data) if (place := place_of(data, span))]
    except (OSError, IndexError, ValueError) as error:  # an empty file cannot be mapped: a ValueError
        raise ArtifactError(
            f"{graph} cannot be loaded.",
            expected="an ONNX graph",
            found=first_line(error),
            todo="download or build it again",
        ) from error


def tensor_spans(data: mmap.mmap) -> Iterator[Span]:
    """Yields the place of every tensor within an ONNX graph's bytes. Raises ValueError, IndexError for what is no protobuf."""
    return _tensors(data, (0, len(data)), "model", 0)


def _tensors(data: mmap.mmap, span: Span, message: str, level: int) -> Iterator[Span]:
    if message == "tensor":
        yield span
        return
    if level > _MOST_LEVELS:
        raise ValueError("nested too deep")
    seen = set()
    for number, wire, value in fields(data, span):
        inner = _MESSAGES[message].get(number)
        if inner is None or wire != _BYTES:
            continue
        if (message, number) in _SINGLE and number in seen:
            raise _misplaced("", f"one {inner} in each {message}", "two, which readers merge")
        seen.add(number)
        yield from _tensors(data, value, inner, level + 1)


def fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int, Span]]:
    """Yields number, wire type and span of each field of a message; a varint's span is its value, twice."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if key >= 2**32:  # readers cut it to 32 bits, and see another field
            raise ValueError("a field with a number that protobuf has not")
        if wire == _VARINT:
            number, at = _varint(data, at)
            value = (number, number)
        else:
            if wire == _BYTES:
                size, at = _varint(data, at)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError("a wire type that ONNX has not")
            value = (at, at + size)
            at += size
        if at > end:
            raise ValueError("a field that ends behind its message")
        yield key >> 3, wire, value


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Reads a varint: its value, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a varint of more than ten bytes")


def place_of(data: mmap.mmap, span: Span) -> Place | None:
    """Returns the place of a tensor whose bytes are in another file; None for one whose bytes are in the graph."""
    dims: list[int] = []
    kind, name, external, within, entry = 0, b"", False, False, {}
    for number, wire, (start, end) in fields(data, span):
        if number == _DIMS and wire == _VARINT:
            dims.append(start)
        elif number == _DIMS and wire == _BYTES:
            while start < end:
                size, start = _varint(data, start)
                dims.append(size)
        elif number == _TYPE and wire == _VARINT:
            kind = start % 2**32  # as readers cut it
        elif number == _NAME and wire == _BYTES:
            name = data[start : min(end, start + 200)]
        elif number == _WHERE and wire == _VARINT:
            external = external or start % 2**32 == _EXTERNAL
        elif number in _VALUES:
            within = within or wire != _BYTES or end > start
        elif number == _PLACE and wire == _BYTES:
            texts = {field: data[low:high] for field, _, (low, high) in fields(data, (start, end))}
            key = texts.get(1, b"").decode(errors="replace")
            if key in entry:
                raise _misplaced(name.decode(errors="replace"), f"one {clipped(key, 20)}", "two")
            entry[key] = texts.get(2, b"").decode(errors="replace")
    if not external and not entry:
        return None
    if within:
        raise _misplaced(name.decode(errors="replace"), "its values in one place", "some in the graph, others in a file")
    return _checked(name.decode(errors="replace"), kind, dims, entry)


def _checked(name: str, kind: int, dims: list[int], entry: dict[str, str]) -> Place:
    size = -(-math.prod(dims) * _BITS.get(kind, 0) // 8)
    if kind not in _BITS or size >= 2**63 or any(dim >= 2**63 for dim in dims):  # a negative one is a varint of 64 bits
        raise _misplaced(name, "a type and a shape of ONNX", f"type {kind}, shape {dims}")
    file, offset = entry.get("location", ""), entry.get("offset", "0")
    if file in ("", ".", "..") or len(file.encode()) > _LONGEST_NAME or any(c in "/\\:" or not c.isprintable() for c in file):
        raise _misplaced(name, "a file beside the graph, by its name", f"location {file!r}")
    if not _NUMBER.fullmatch(offset):
        raise _misplaced(name, "an offset in bytes", f"offset {offset!r}")
    if entry.get("length", str(size)) != str(size):  # torch's exporter writes none
        raise _misplaced(name, f"{size} bytes, by shape and type", f"length {entry['length']!r}")
    return Place(name, kind, file, int(offset), size)


def _misplaced(name: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"The weight {clipped(repr(name))} is stored where none can be.",
        expected=expected,
        found=clipped(found),
        todo="download or build the graph again",
    )
