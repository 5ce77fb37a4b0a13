"""Weights in 8, 4 or 2 bits as MatMulNBits (com.microsoft), which onnxruntime multiplies in integers as it is.

For 2 bits, which `DequantizeLinear` of the opsets that runtimes load does not have. onnxruntime 1.31.1 has kernels of accuracy
level 4 on a CPU for 2 bits in blocks of 32, 64 and 128; others it multiplies by dequantized weights, 40 to 200 times slower.
"""

from __future__ import annotations

import numpy as np

from nemoport.graph_file import drop_unread
from nemoport.quantize.blocks import Blocks

DOMAIN, OPERATOR = "com.microsoft", "MatMulNBits"
INTEGERS = 4  # accuracy level: activations are rounded to 8 bits, row by row and block by block
FAST_SIZES = (32, 64, 128)  # of blocks, in 2 bits


def store_nbits(model, stored: dict[str, tuple[Blocks, int]]) -> None:
    """Replaces MatMul nodes in an onnx.ModelProto by MatMulNBits of the same name. stored: node name -> (blocks, bits).

    The scales stay f32 here, see `storage.halve`.
    """
    from onnx import helper, numpy_helper

    nodes, made = [], []
    for node in model.graph.node:
        if node.name not in stored:
            nodes.append(node)
            continue
        blocks, bits = stored[node.name]
        rows, columns = blocks.values.shape
        name = f"{node.input[1]}.int{bits}.of.{node.name}"
        made += [
            numpy_helper.from_array(packed(blocks, bits), name),
            numpy_helper.from_array(np.ascontiguousarray(blocks.scales.T, np.float32), f"{name}.scale"),
        ]
        settings = {"K": rows, "N": columns, "bits": bits, "block_size": blocks.size, "accuracy_level": INTEGERS}
        inputs = [node.input[0], name, f"{name}.scale"]
        nodes.append(helper.make_node(OPERATOR, inputs, node.output, node.name, domain=DOMAIN, **settings))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(made)
    drop_unread(model.graph)
    if not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def packed(blocks: Blocks, bits: int) -> np.ndarray:
    """The integers as MatMulNBits reads them: u8 [out, blocks, size * bits / 8], the first in the lowest bits, from 0 on, so that
    zero is 2^(bits - 1)."""
    rows, columns = blocks.values.shape
    count, zero, each = -(-rows // blocks.size), 1 << (bits - 1), 8 // bits
    codes = np.full((columns, count * blocks.size), zero, np.uint8)
    codes[:, :rows] = (blocks.values.astype(np.int16) + zero).T
    codes = codes.reshape(columns, count, -1, each)
    return np.bitwise_or.reduce(codes << (np.arange(each, dtype=np.uint8) * bits), axis=-1).astype(np.uint8)


def unpacked(codes: np.ndarray, scales: np.ndarray, rows: int, bits: int, size: int) -> Blocks:
    """The blocks of `packed`. codes: u8 [out, blocks, size * bits / 8]; scales: f32 [out, blocks]; rows: in."""
    each = 8 // bits
    values = (codes[..., None] >> (np.arange(each, dtype=np.uint8) * bits)) & ((1 << bits) - 1)
    values = values.reshape(len(codes), -1)[:, :rows].astype(np.int16) - (1 << (bits - 1))
    return Blocks(np.ascontiguousarray(values.T.astype(np.int8)), np.ascontiguousarray(scales.T, np.float32), size)


def nbits_nodes(model) -> list[str]:
    """Names of the MatMulNBits nodes."""
    return [n.name for n in model.graph.node if n.op_type == OPERATOR]
