"""Arrays of an .npz file that anybody may have made: no pickle, no array larger than the file's own entry, bounded in all."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from nemoport.errors import ArtifactError, first_line
from nemoport.text import clipped

MOST_ARRAYS = 256
MOST_BYTES = 1 << 28  # of all arrays
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: Path, todo: str, most_arrays: int = MOST_ARRAYS, most_bytes: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Reads name -> array. most_bytes: of all of them.

    Raises ArtifactError for what is no .npz file, and for objects and sizes that are not to be had."""
    try:
        with zipfile.ZipFile(path) as packed:
            entries = packed.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > most_arrays or total > most_bytes:
                raise ValueError(f"{len(entries)} arrays of {total} bytes")
            arrays = {}
            for entry in entries:
                with packed.open(entry) as stream:
                    arrays[entry.filename.removesuffix(".npy")] = _array(stream, entry.file_size)
            return arrays
    # RuntimeError: an entry that claims to be encrypted, or packed in a way that is not known
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
    ) as error:
        raise ArtifactError(
            f"{path} cannot be read.",
            expected=f"an .npz file of numbers, at most {most_arrays} arrays of {most_bytes >> 20} MiB together",
            found=f"{type(error).__name__}: {clipped(first_line(error))}",
            todo=todo,
        ) from error


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """Reads one array of an entry of `size` bytes. Raises ValueError where its header states another size."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array of the format {version}")
    shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would run code")
    content = stream.read(size + 1)
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for an array {list(shape)} of {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
