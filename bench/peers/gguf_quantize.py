"""Quantizes the tensors of gguf_layouts.py as CrispASR's and transcribe.cpp's own quantizers do, with ggml's own rounding.

Which tensor becomes what is read off their programs (CrispASR: examples/crispasr-quantize/main.cpp, transcribe.cpp:
tools/transcribe-quantize/policy.cpp, August 2026). Neither program is in a wheel; the function that both call,
`ggml_quantize_chunk`, is in the library that CrispASR's has.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf_file import Blocks, Tensors

# Name -> ggml's type, values and bytes of a block.
KINDS = {
    "q4_0": (2, 32, 18),
    "q5_0": (6, 32, 22),
    "q8_0": (8, 32, 34),
    "q2_k": (10, 256, 84),
    "q3_k": (11, 256, 110),
    "q4_k": (12, 256, 144),
    "q5_k": (13, 256, 176),
    "q6_k": (14, 256, 210),
}
# transcribe.cpp's: what matrices become, those behind attention, and those whose rows are no blocks.
PRESETS = {
    "q4_0": ("q4_0", "q4_0", "f16"),
    "q8_0": ("q8_0", "q8_0", "f16"),
    "q6_k": ("q6_k", "q6_k", "q8_0"),
    "q5_k_m": ("q5_k", "q8_0", "q8_0"),
    "q4_k_m": ("q4_k", "q8_0", "q8_0"),
}
ROWS_ARE_NO_BLOCKS = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q4_0", "q5_k": "q5_0", "q6_k": "q8_0"}  # CrispASR's
POINTWISE = (".conv.pw1.weight", ".conv.pw2.weight")


def library(environment: Path) -> Path:
    """ggml's library in an environment that has crispasr."""
    return next(environment.glob("lib/python*/site-packages/crispasr/libggml-base.so"))


class Quantizer:
    """ggml's rounding: `blocks(kind, tensor)`."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._round = self._library.ggml_quantize_chunk
        self._round.restype = ctypes.c_size_t
        float_pointer = ctypes.POINTER(ctypes.c_float)
        self._round.argtypes = [ctypes.c_int, float_pointer, ctypes.c_void_p, *[ctypes.c_int64] * 3, float_pointer]

    def blocks(self, kind: str, tensor: np.ndarray) -> Blocks:
        """The tensor, whose last dimension is a whole number of blocks, as `kind`."""
        number, block, size = KINDS[kind]
        nbytes = tensor.size // block * size

        def data() -> bytes:
            return self._rounded(number, tensor, nbytes, None).raw

        return Blocks(number, tensor.shape, nbytes, data)

    def values(self, kind: str, tensor: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """The tensor f32 [rows, columns] as it is after rounding to `kind`. importance: f32 [columns], of each column's error."""
        number, block, size = KINDS[kind]
        rounded = self._rounded(number, tensor, tensor.size // block * size, importance)
        values = np.empty(tensor.shape, np.float32)
        pointer = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        getattr(self._library, f"dequantize_row_{kind.replace('k', 'K')}")(rounded, pointer, ctypes.c_int64(tensor.size))
        return values

    def _rounded(self, number: int, tensor: np.ndarray, nbytes: int, importance: np.ndarray | None) -> ctypes.Array:
        """importance: f32 [columns] or None."""
        values = np.ascontiguousarray(tensor, np.float32)
        rounded = ctypes.create_string_buffer(nbytes)
        columns = values.shape[-1]
        pointer, weights = (a if a is None else a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for a in (values, importance))
        done = self._round(number, pointer, rounded, 0, values.size // columns, columns, weights)
        assert done == nbytes, f"ggml wrote {done} bytes for {nbytes}"
        return rounded


def crispasr_kind(name: str, tensor: np.ndarray, precision: str) -> str | None:
    """What a tensor becomes, of a streaming model; None if it stays as it is. tensor: a pointwise convolution as a matrix."""
    if tensor.ndim != 2 or "weight" not in name or "norm" in name:
        return None
    if name.endswith(POINTWISE):
        precision = "q8_0"  # its floor
    if tensor.shape[-1] % KINDS[precision][1]:
        precision = ROWS_ARE_NO_BLOCKS.get(precision, precision)
    return precision if tensor.shape[-1] % KINDS[precision][1] == 0 else None


def transcribe_cpp_kind(name: str, tensor: np.ndarray, precision: str) -> str | None:
    """What a tensor becomes, None if it stays f32."""
    if name.endswith((".bias", ".pos_bias_u", ".pos_bias_v")) or "norm_" in name or ".bn." in name:
        return None
    if name.endswith((".conv.pointwise1.weight", ".conv.pointwise2.weight")):
        return "f16"
    if ".conv." in name:
        return None
    matrices, behind_attention, otherwise = PRESETS[precision]
    kinds = (behind_attention if name.endswith("attn.linear_out.weight") else matrices, otherwise, "f16")
    return next(kind for kind in kinds if kind == "f16" or tensor.shape[-1] % KINDS[kind][1] == 0)


def quantized(peer: str, tensors: Tensors, precision: str, quantizer: Quantizer) -> dict[str, np.ndarray | Blocks]:
    """The tensors of a peer's layout, in one of its precisions; CrispASR's from matrices in f16, as its own files are made."""
    kind_of: Callable[[str, np.ndarray, str], str | None] = {"crispasr": crispasr_kind, "transcribe-cpp": transcribe_cpp_kind}[
        peer
    ]
    made: dict[str, np.ndarray | Blocks] = {}
    for name, tensor in tensors.items():
        rows = tensor[:, :, 0] if peer == "crispasr" and name.endswith(POINTWISE) else tensor
        kind = kind_of(name, rows, precision)
        if kind is None:
            made[name] = tensor
        elif kind == "f16":
            made[name] = rows.astype(np.float16)
        else:
            made[name] = quantizer.blocks(kind, rows)
    return made
