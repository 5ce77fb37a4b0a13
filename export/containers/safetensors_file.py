"""A .safetensors file: its header is checked, then tensors are read by it, without a library.

The file begins with the bytes of the header (u64, little endian), then the header, a JSON object of name -> dtype, shape and
data_offsets, then the data (https://github.com/huggingface/safetensors, README). It may come from a stranger: nothing is read or
made before the header holds for the bytes that are there.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.text import clipped, has_controls

MOST_HEADER_BYTES = 16 << 20  # of a model of 42 layers and 1.1 billion weights 0.3 MB
MOST_TENSORS = 50_000
MOST_DIMENSIONS = 8
LONGEST_NAME = 512
# dtype -> how numpy reads it; numpy has no bfloat16, which is the upper half of a float32. Integers are counters, not weights.
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
QUANTIZED = ("I8", "U8", "F8_E4M3", "F8_E5M2", "F4", "I4", "U4")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. start: of its data, in bytes from the beginning of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def load(self) -> np.ndarray:
        """Reads it as f32. Raises ValueError where the file has become shorter."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            values = np.fromfile(file, DTYPES[self.dtype], self.size)
        if values.size != self.size:
            raise ValueError(f"{self.path.name} has become shorter")
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(self.shape)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Reads the header of a file -> its tensors by name. Raises ValueError for one that does not hold for the file."""
    with open(path, "rb") as file:
        if not stat.S_ISREG((status := path.stat()).st_mode):
            raise ValueError("no file, but a device or a pipe")
        length = int.from_bytes(file.read(8), "little")
        if status.st_size < 8 or length > status.st_size - 8:
            raise ValueError(f"a header of {length} bytes in a file of {status.st_size}")
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes, more than {MOST_HEADER_BYTES}")
        content = file.read(length)
    try:
        header = json.loads(content.decode(), object_pairs_hook=_each_once)
    except RecursionError as error:
        raise ValueError("a header that is nested without end") from error
    if not isinstance(header, dict) or not content.startswith(b"{"):
        raise ValueError("a header that is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("a __metadata__ that is no mapping of texts")
    if len(header) > MOST_TENSORS:
        raise ValueError(f"{len(header)} tensors, more than {MOST_TENSORS}")
    return dict(_tensors(path, header, 8 + length, status.st_size))


def _tensors(path: Path, header: dict[str, Any], start: int, end: int) -> Iterator[tuple[str, StoredTensor]]:
    """start, end: of the data in the file. The tensors fill it without a gap and without sharing a byte, as the format has it."""
    found = [(name, *_entry(name, entry)) for name, entry in header.items()]
    at = 0
    for name, dtype, shape, (first, last) in sorted(found, key=lambda one: one[3]):
        if first != at or last > end - start:
            raise ValueError(f"{clipped(name)}: bytes {first} to {last}, not from {at} on within {end - start}")
        at = last
        yield name, StoredTensor(path, dtype, shape, start + first)
    if at != end - start:
        raise ValueError(f"{end - start} bytes of data, of which tensors fill {at}")


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """dtype, shape, and offsets of a header's entry, which are right for each other."""
    if not name or len(name) > LONGEST_NAME or has_controls(name):
        raise ValueError(f"a tensor with the name {clipped(ascii(name))}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{clipped(name)}: something else than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype in QUANTIZED:
        raise ValueError(f"{clipped(name)}: of {dtype}, quantized weights")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{clipped(name)}: of {clipped(repr(dtype))}, not {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{clipped(name)}: a shape {clipped(repr(shape))} at {clipped(repr(offsets))}")
    size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != size:
        raise ValueError(f"{clipped(name)}: {offsets[1] - offsets[0]} bytes for a shape that takes {size}")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _each_once(pairs: list[tuple[str, Any]]) -> dict:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name twice in the header")
    return found
