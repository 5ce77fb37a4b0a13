"""Gate `structure`: what runtimes and processors make of the graph, which a run on this machine need not show.

A product that was meant for integers must not run in floats. A quantizer can miss a node, and a runtime can fail to fuse a
pattern: both give the right words at fp32's speed or slower, so no gate on accuracy finds them. Judged on the graph as
onnxruntime optimised it for the provider.

No integer product may overflow. x86 without VNNI adds two products of u8 and s8 in 16 bits, saturating: words are lost there
and nowhere else, so no gate on accuracy that runs elsewhere finds them. Judged on the weights.
"""

from __future__ import annotations

from pathlib import Path

from nemoport.files import scratch_folder
from nemoport.quantize.graph import KEPT
from nemoport.runtimes.onnxruntime.session import open_graph
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult

FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
INTEGER_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "MatMulNBits")


def run(context: Context) -> list[GateResult]:
    floats, integers = products(context.artifact.encoder, context.provider)
    overflowing = overflowing_pairs(context.artifact.encoder)
    return [
        context.judge(
            "structure",
            "float products of weights a layer",
            len(floats) / context.spec.encoder.n_layers,
            limit="max_float_products_a_layer",
            unit="nodes",
            n=1,
            evidence=", ".join(floats[:3]),
        ),
        context.judge(
            "structure",
            "integer products a layer",
            len(integers) / context.spec.encoder.n_layers,
            limit="min_integer_products_a_layer",
            at_least=True,
            unit="nodes",
            n=1,
        ),
        context.judge(
            "structure",
            "pairs of weights that 16 bits do not hold",
            sum(overflowing.values()),
            limit="max_overflowing_pairs",
            unit="pairs",
            n=1,
            evidence=", ".join(list(overflowing)[:3]),
        ),
    ]


def products(encoder: Path, provider: str) -> tuple[list[str], list[str]]:
    """Names of nodes that multiply by a weight: (those that do so in floats and should not, those that do so in integers)."""
    import onnx

    with scratch_folder() as folder:
        optimised = folder / "optimised.onnx"
        open_graph(encoder, provider, optimised=optimised)
        graph = onnx.load(optimised, load_external_data=False).graph
    weights = {i.name for i in graph.initializer if len(i.dims) == 2}  # not the positions, a constant for each head
    weights |= {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights}
    floats = [
        n.name
        for n in graph.node
        if n.op_type in FLOAT_PRODUCTS and weights.intersection(n.input[:2]) and not n.name.startswith(KEPT)
    ]
    return floats, [n.name for n in graph.node if n.op_type in INTEGER_PRODUCTS]


def overflowing_pairs(encoder: Path) -> dict[str, int]:
    """Finds s8 weights [in, out] whose products can overflow 16 bits: name -> how many pairs of them do.

    A pair is two neighbours along `in`, 2i and 2i + 1. It counts if its products with some two activations, of the type that
    the weight is multiplied with, sum to more than s16 holds.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(encoder).graph
    constants = {i.name: i for i in graph.initializer}
    dequantizers = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    activations = {n.input[1]: np.dtype(np.uint8) for n in graph.node if n.op_type == "MatMulInteger"}
    for node in graph.node:
        if node.op_type == "MatMul" and dequantizers.keys() >= set(node.input):
            values, weight = (dequantizers[name] for name in node.input)
            activations[weight.input[0]] = numpy_helper.to_array(constants[values.input[2]]).dtype
    s16, found = np.iinfo(np.int16), {}
    for name, dtype in activations.items():
        weight, x = numpy_helper.to_array(constants[name]), np.iinfo(dtype)
        if weight.dtype != np.int8:
            continue
        ends = np.sort(np.stack([weight.astype(np.int32) * x.min, weight.astype(np.int32) * x.max]), 0)
        low, high = ends[:, 0 : len(weight) // 2 * 2 : 2] + ends[:, 1::2]
        if count := int(np.count_nonzero((low < s16.min) | (high > s16.max))):
            found[name] = count
    return found
