"""s8 weights per output channel whose products saturate on no processor.

x86 without VNNI multiplies u8 by s8 and adds the products of two neighbouring input channels, 2i and 2i + 1, in 16 bits
(vpmaddubsw): 255 x 127 + 255 x 127 is twice what these hold, and frames lose up to 6 dB. onnxruntime uses u8 weights and
slower kernels there if an option of the session asks for it; most applications do not set it. Weights of seven bits fit
whatever their neighbours are, for 6 dB of weight noise. But two large weights of one sign are seldom neighbours: a scale
by which no such pair of a column sums to more than 128 (255 x 128 < 2^15) costs 2 dB, fits as well, and runs in the fast
kernels of every processor. Clipping single pairs instead of widening the column's scale was never better.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError
from nemoport.quantize.graph import Weights

LARGEST = 127
PAIR_LIMIT = 128  # of the sum of two neighbours of one sign
WIDENED = tuple(np.linspace(1.0, 1.05, 16))  # times the smallest scale there could be: some round better, by 0.3 dB


def column_scales(weight: np.ndarray, pair_limit: int = PAIR_LIMIT) -> np.ndarray:
    """Scales f32 [out] of a weight f32 [in, out]: for each column the one of least square error that keeps the limits."""
    least = np.abs(weight).max(0, initial=0) / LARGEST
    least = np.maximum(least, pair_sums(weight).max(0, initial=0) / pair_limit)
    least = np.where(least > 0, least, 1)
    best, found = np.full(weight.shape[1], np.inf), least
    for factor in WIDENED:  # the largest keeps the limits: what rounding adds to a pair is less than 5 % of it
        scales = (factor * least).astype(np.float32)
        rounded = np.round(weight / scales)
        kept = (pair_sums(rounded).max(0, initial=0) <= pair_limit) & (np.abs(rounded).max(0, initial=0) <= LARGEST)
        error = np.where(kept, np.square(rounded * scales - weight).sum(0), np.inf)
        best, found = np.minimum(best, error), np.where(error < best, scales, found)
    return found.astype(np.float32)


def pair_sums(weight: np.ndarray) -> np.ndarray:
    """Sums [in // 2, out] of a weight [in, out]: |a| + |b| of the rows 2i and 2i + 1 where they have one sign, else 0."""
    even, odd = weight[: len(weight) // 2 * 2].reshape(-1, 2, weight.shape[1]).swapaxes(0, 1)
    return np.where((even > 0) == (odd > 0), np.abs(even + odd), 0)


def round_columns(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rounds a weight f32 [in, out] to s8 [in, out], by the scales f32 [out] of its columns."""
    return np.round(weight / scales).astype(np.int8)


def replace_weights(model, parent: Artifact, nodes: Iterable[str], pair_limit: int) -> None:
    """Replaces the weights and scales of onnxruntime's quantizers by those of `column_scales`.

    model: onnx.ModelProto with its weights, quantized by column; nodes: names of the parent's MatMuls that were quantized.
    Raises ArtifactError if the quantizer stored a weight in another shape or type than s8 and f32 by column.
    """
    import onnx
    from onnx import numpy_helper

    exact = Weights(onnx.load(parent.encoder))
    made = {i.name: i for i in model.graph.initializer}
    for name in {exact.node(node).input[1] for node in nodes}:
        scales = column_scales(exact[name], pair_limit)
        for suffix, array in (("quantized", round_columns(exact[name], scales)), ("scale", scales)):
            tensor = made[f"{name}_{suffix}"]
            before = numpy_helper.to_array(tensor)
            if (before.shape, before.dtype) != (array.shape, array.dtype):
                raise ArtifactError(
                    f"The quantizer stored {tensor.name} in an unexpected form.",
                    expected=f"{array.dtype} {list(array.shape)}",
                    found=f"{before.dtype} {list(before.shape)}",
                    todo="install the onnxruntime and onnx that the constraints file pins",
                )
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
