"""Weights in 8 or 4 bits by blocks of input channels, in standard ONNX: DequantizeLinear, then the MatMul as it was.

onnxruntime 1.31 fuses the two into one MatMulNBits when it loads the graph and multiplies in integers. A runtime without
this fusion multiplies by the dequantized weights, which is slower and nearer to fp32: encoder frames at 43.6 dB with
onnxruntime 1.19.2, 1.20.1 and 1.22.1, at 37.9 dB with 1.31.1. Older ones do not load opset 21.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import ENCODER, Artifact
from nemoport.errors import UsageError
from nemoport.graph_file import save_model
from nemoport.quantize.graph import check_quantized, metadata
from nemoport.quantize.storage import halve, halve_decoder

OPSET = 21  # the first whose DequantizeLinear takes blocks, and 4-bit integers
# The integers that are used. Of 4 bits all sixteen: -8 is an eighth finer than -7..7 for the same bytes. Of 2 bits all four.
LIMITS = {8: (-127, 127), 4: (-8, 7), 2: (-2, 1)}


@dataclass(frozen=True)
class Blocks:
    """A weight in blocks of `size` input channels: values i8 [in, out], within LIMITS; scales f32 [ceil(in / size), out],
    of either sign; zeros: the values that stand for 0, i8 as scales, within LIMITS, None where all are 0."""

    values: np.ndarray
    scales: np.ndarray
    size: int
    zeros: np.ndarray | None = None

    def dequantized(self) -> np.ndarray:
        """(values - zeros) times scales, f32 [in, out]."""
        steps = np.repeat(self.scales, self.size, 0)[: len(self.values)]
        if self.zeros is None:
            return self.values * steps
        return (self.values - np.repeat(self.zeros.astype(np.float32), self.size, 0)[: len(self.values)]) * steps


def block_scales(weight: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Scales f32 [ceil(in / size), out]. The largest weight of each block becomes the integer furthest from zero, so that
    in 4 bits a block whose largest weight is positive has a negative scale. weight: f32 [in, out]. Raises UsageError for
    bits or block sizes that runtimes have no kernels for."""
    if bits not in LIMITS or size < 16 or size & (size - 1):
        raise UsageError(
            "The weights cannot be stored so.",
            expected="8, 4 or 2 bits, in blocks of a power of two of at least 16 (what runtimes have kernels for)",
            found=f"{bits} bits, blocks of {size}",
            todo="correct the recipe",
        )
    rows, columns = weight.shape
    padded = np.zeros((-(-rows // size) * size, columns), np.float32)
    padded[:rows] = weight
    blocks = padded.reshape(-1, size, columns)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)[:, 0]
    low, high = LIMITS[bits]
    return np.where(largest == 0, 1.0, np.abs(largest) / high if -low == high else largest / low).astype(np.float32)


def round_nearest(weight: np.ndarray, bits: int, size: int) -> Blocks:
    """Rounds each weight to the nearest step of its block. weight: f32 [in, out]. Raises UsageError, as `block_scales`."""
    scales = block_scales(weight, bits, size)
    steps = np.repeat(scales, size, 0)[: len(weight)]
    return Blocks(np.clip(np.round(weight / steps), *LIMITS[bits]).astype(np.int8), scales, size)


def store(model, stored: dict[str, tuple[Blocks, int]]) -> None:
    """Replaces the weights of MatMul nodes in an onnx.ModelProto. stored: node name -> (blocks, bits)."""
    from onnx import TensorProto, helper, numpy_helper

    read = [name for n in model.graph.node for name in n.input]
    gone, before = set(), {}
    for node in model.graph.node:
        if node.name not in stored:
            continue
        blocks, bits = stored[node.name]
        weight = node.input[1]
        if read.count(weight) == 1:
            gone.add(weight)
        quantized = f"{weight}.int{bits}" if weight in gone else f"{weight}.int{bits}.of.{node.name}"

        def integers(name: str, values: np.ndarray, bits: int = bits) -> TensorProto:
            if bits == 4:
                return helper.make_tensor(name, TensorProto.INT4, values.shape, packed(values), raw=True)
            return numpy_helper.from_array(values, name)

        made = [integers(quantized, blocks.values), numpy_helper.from_array(blocks.scales, f"{quantized}.scale")]
        if blocks.zeros is not None:
            made.append(integers(f"{quantized}.zero", blocks.zeros))
        model.graph.initializer.extend(made)
        inputs, output = [i.name for i in made], f"{quantized}.dequantized"
        before[node.name] = helper.make_node(
            "DequantizeLinear", inputs, [output], f"{node.name}/dequantize", axis=0, block_size=blocks.size
        )
        node.input[1] = output
    nodes = [made for node in model.graph.node for made in (before.get(node.name), node) if made is not None]
    kept = [i for i in model.graph.initializer if i.name not in gone]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, OPSET)
    model.ir_version = max(model.ir_version, 10)  # the first of opset 21


def packed(values: np.ndarray) -> bytes:
    """Packs two 4-bit integers into a byte, the first in the low half, as ONNX stores INT4. values: i8, -8..7."""
    flat = values.reshape(-1).astype(np.uint8) & 0xF
    if len(flat) % 2:
        flat = np.append(flat, np.uint8(0))
    return (flat[0::2] | (flat[1::2] << 4)).tobytes()


def write_stored(
    model,
    stored: dict[str, tuple[Blocks, int]],
    parent: Artifact,
    folder: Path,
    report: dict[str, str] | None = None,
    *,
    halves: bool = False,
) -> None:
    """Writes the four files of a variant whose weights are `stored` in blocks: MatMul node -> (blocks, bits).

    model: the parent's encoder, an onnx.ModelProto with its weights, which is changed. report: further entries of the
    encoder's metadata_props. halves: scales and the encoder's other weights become fp16, as the decoder's weights. Raises
    ArtifactError if not every node was quantized.
    """
    store(model, stored)
    if halves:
        halve(model, {n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear" and _too_small(n, stored)})
    check_quantized(quantized_nodes(model), list(stored))
    del model.graph.value_info[:]
    save_model(model, folder / ENCODER, {**metadata(model), **(report or {})})
    halve_decoder(parent, folder)


def _too_small(dequantize: Any, stored: dict[str, tuple[Blocks, int]]) -> bool:
    """Whether half precision has fewer bits for a scale of a node that `store` made."""
    scales = stored[dequantize.name.removesuffix("/dequantize")][0].scales
    return bool(np.abs(scales).min() < np.finfo(np.float16).tiny)


def quantized_nodes(model) -> list[str]:
    """Names of the MatMul nodes whose weight comes from DequantizeLinear."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in dequantized]
