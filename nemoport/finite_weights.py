"""The weights of an ONNX graph, searched for NaN and infinity, which its outputs need not show.

An LSTM of onnxruntime's CPU provider clips its gates, so that NaN in a weight of it comes out as a number: the words are wrong
and every score is finite. The weights are read in blocks, so that memory does not grow with the graph.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from nemoport.errors import ArtifactError, first_line
from nemoport.external_data import Span, fields, place_of, tensor_spans
from nemoport.text import clipped

# Number of ONNX's type -> integers of its size, and the bits of its exponent: NaN and infinity have all of them.
_EXPONENTS = {
    1: ("<u4", 0x7F80_0000),
    10: ("<u2", 0x7C00),
    11: ("<u8", 0x7FF0_0000_0000_0000),
    16: ("<u2", 0x7F80),  # bfloat16
}
_TYPE, _NAME, _INTS = 2, 8, 5  # fields of a tensor; a half of _INTS is a varint
_VALUES = {4: 1, 9: 0, 10: 11}  # field with floats, raw bytes, doubles -> its type; 0 for the tensor's
_BYTES = 2  # wire type
_BLOCK = 1 << 22  # bytes


def check_finite_weights(graph: Path) -> None:
    """Raises ArtifactError for an ONNX graph with NaN or infinity in a weight of floats, in 16, 32 or 64 bits, and for a file
    that is no graph."""
    if found := non_finite_weights(graph):
        raise ArtifactError(
            f"{graph} has weights with values that are not finite.",
            expected="finite weights",
            found=clipped(", ".join(f"{name}: {count}" for name, count in found.items())),
            todo="download or build it again; if it stays, the checkpoint itself is damaged",
        )


def non_finite_weights(graph: Path) -> dict[str, int]:
    """Returns name -> how many values are NaN or infinite, of the weights that have any. Raises ArtifactError."""
    found: dict[str, int] = {}
    try:
        with open(graph, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for span in tensor_spans(data):
                name, count = _count(graph, data, span)
                if count:
                    found[name] = found.get(name, 0) + count
    except (OSError, IndexError, ValueError) as error:
        raise ArtifactError(
            f"{graph} cannot be loaded.",
            expected="an ONNX graph with its weights beside it",
            found=first_line(error),
            todo="download or build it again",
        ) from error
    return found


def _count(graph: Path, data: mmap.mmap, span: Span) -> tuple[str, int]:
    """Returns a tensor's name, and how many of its values are not finite."""
    if place := place_of(data, span):
        return place.weight, _not_finite(_blocks(graph.parent / place.file, place.offset, place.bytes), place.kind)
    parts = list(fields(data, span))
    kind = next((value[0] for number, _, value in parts if number == _TYPE), 0)
    name = next((data[start:end].decode(errors="replace") for number, _, (start, end) in parts if number == _NAME), "")
    count = 0
    for number, wire, (start, end) in parts:
        if number in _VALUES:
            inside = (data[at : min(at + _BLOCK, end)] for at in range(start, end, _BLOCK))
            count += _not_finite(inside, _VALUES[number] or kind)
        elif number == _INTS and kind in (10, 16):
            halves = _varints(data, start, end) if wire == _BYTES else [(start & 0xFFFF).to_bytes(2, "little")]
            count += _not_finite(halves, kind)
    return name or "a constant", count


def _blocks(path: Path, offset: int, size: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(offset)
        for left in range(size, 0, -_BLOCK):
            yield file.read(min(left, _BLOCK))


def _not_finite(blocks: Iterable[bytes], kind: int) -> int:
    """Counts the values of a type, by its number, that are not finite. A type without NaN has none."""
    if kind not in _EXPONENTS:
        return 0
    dtype, exponent = _EXPONENTS[kind]
    mask = np.dtype(dtype).type(exponent)
    return sum(int(np.count_nonzero(np.frombuffer(block, dtype) & mask == mask)) for block in blocks)


def _varints(data: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    """Yields the low 16 bits of packed varints, u16, little-endian."""
    rest = b""  # of a varint that the next block continues
    for at in range(start, end, _BLOCK):
        block = rest + data[at : min(at + _BLOCK, end)]
        octets = np.frombuffer(block, np.uint8)
        last = np.flatnonzero(octets < 0x80)  # of each varint
        first = np.concatenate([[0], last + 1])
        first, rest = first[:-1], block[first[-1] :]
        if len(rest) > 10:
            raise ValueError("a varint of more than ten bytes")
        values = np.zeros(len(last), np.uint32)
        for number in range(3):
            inside = first + number <= last
            values[inside] |= (octets[first[inside] + number] & np.uint32(0x7F)) << np.uint32(7 * number)
        yield values.astype("<u2").tobytes()
