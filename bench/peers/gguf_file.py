"""Writes GGUF files, version 3 (ggml-org/ggml, docs/gguf.md): metadata and tensors f32, f16 or in blocks of few bits."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # types of metadata
F32, F16 = 0, 1  # types of tensors


class Signed(int):
    """An integer of metadata that is written with its sign; others are u32."""


@dataclass(frozen=True)
class Blocks:
    """A tensor in blocks of few bits. kind: ggml's type; data: makes its bytes, when they are written, nbytes of them."""

    kind: int
    shape: tuple[int, ...]
    nbytes: int
    data: Callable[[], bytes]


Value = bool | int | float | str | list
Tensors = dict[str, np.ndarray]


def write(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, np.ndarray | Blocks]) -> None:
    """Writes a file. Arrays are f32 or f16, in C order; GGUF lists their dimensions from the last to the first."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for name, tensor in tensors.items():
            kind = tensor.kind if isinstance(tensor, Blocks) else {np.float32: F32, np.float16: F16}[tensor.dtype.type]
            dimensions = tensor.shape[::-1]
            file.write(_string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset))
            offset += tensor.nbytes + _missing(tensor.nbytes)
        file.write(bytes(_missing(file.tell())))
        for tensor in tensors.values():
            file.write(tensor.data() if isinstance(tensor, Blocks) else np.ascontiguousarray(tensor).tobytes())
            file.write(bytes(_missing(tensor.nbytes)))


def _missing(size: int) -> int:
    """Bytes up to the next multiple of ALIGNMENT."""
    return -size % ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    kind, data = _typed(value)
    return struct.pack("<I", kind) + data


def _typed(value: Value) -> tuple[int, bytes]:
    match value:
        case bool():
            return BOOL, struct.pack("<?", value)
        case Signed():
            return INT32, struct.pack("<i", value)
        case int():
            return UINT32, struct.pack("<I", value)
        case float():
            return FLOAT32, struct.pack("<f", value)
        case str():
            return STRING, _string(value)
        case list():
            items = [_typed(Signed(item) if type(item) is int else item) for item in value]
            kind = items[0][0] if items else INT32
            return ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(data for _, data in items)
