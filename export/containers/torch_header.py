"""Names, types and shapes of the tensors in a file of weights that torch wrote, without torch and without running what it names.

The file is a zip with a pickle that rebuilds a mapping of tensors around storages. Of the pickle machine only those operations
are here that torch writes for such a mapping, and of names only those of its storages: what a stranger's pickle does otherwise
ends in a ValueError.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from typing import IO, Any

from nemoport.export.containers.container import TensorHeader

MOST_PICKLE_BYTES = 16 << 20  # of a model of 42 layers 0.2 MB
MOST_DIMENSIONS = 8
_DTYPES = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
}
_OPERATIONS = (
    b"\x80 c } ] ) ( t \x85 \x86 \x87 R q r h j X \x8c K M J \x8a \x88 \x89 N Q s u b . a e"  # protocol 2
).split()
_FAULTS = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, IndexError, TypeError, ValueError,
    AttributeError, OverflowError, RuntimeError, struct.error,
)  # fmt: skip


def read_header(stream: IO[bytes]) -> dict[str, TensorHeader]:
    """Reads the tensors of a seekable stream by their names. Raises ValueError for another file, torch's older form too."""
    try:
        with zipfile.ZipFile(stream) as parts:
            entry = next(entry for entry in parts.infolist() if entry.filename.endswith("/data.pkl"))
            if entry.file_size > MOST_PICKLE_BYTES:
                raise ValueError(f"a pickle of {entry.file_size} bytes, more than {MOST_PICKLE_BYTES}")
            with parts.open(entry) as file:
                content = file.read(MOST_PICKLE_BYTES)
        found = _Shapes(io.BytesIO(content)).load()
    except StopIteration:
        raise ValueError("no data.pkl in it") from None
    except _FAULTS as error:
        raise ValueError(f"another file than torch's named tensors: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError("something else than named tensors")
    return {name: _checked(value) for name, value in found.items()}


def _checked(value: Any) -> TensorHeader:
    dtype, shape = value if isinstance(value, tuple) and len(value) == 2 else ("", None)
    if dtype not in _DTYPES.values() or not isinstance(shape, tuple) or len(shape) > MOST_DIMENSIONS:
        raise ValueError("something else than named tensors")
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise ValueError("a tensor of an impossible shape")
    return TensorHeader(dtype, shape)


# Python's own Unpickler, whose tables have a key for each entry: that in C makes room for any index that a pickle names.
class _Shapes(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Builds (dtype, shape) where torch builds a tensor."""

    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPERATIONS}  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
            return _rebuilt
        raise pickle.UnpicklingError(f"it names {module}.{name}"[:200])

    def persistent_load(self, pid: Any) -> Any:
        return pid[1]  # of ("storage", its type, key, device, number of values)


def _rebuilt(first: Any, second: Any, *others: Any) -> Any:
    """Of a tensor: its storage, an offset and a shape; of a parameter: its tensor."""
    return first if isinstance(first, tuple) else (first, others[0])
