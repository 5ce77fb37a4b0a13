"""Structure: what the runtime makes of the graph. A product that was meant for integers must not run in floats.

A quantizer can miss a node, and a runtime can fail to fuse a pattern: both give the right words at fp32's speed or
slower, so no gate on accuracy sees them. Judged on the graph as onnxruntime optimised it for the provider.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from nemoport.quantize.graph import KEPT
from nemoport.validate.context import Context
from nemoport.validate.result import GateResult
from nemoport.validate.sessions.onnxruntime import open_graph

FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
INTEGER_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "MatMulNBits")


def run(context: Context) -> list[GateResult]:
    floats, integers = products(context.artifact.encoder, context.provider)
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
    ]


def products(encoder: Path, provider: str) -> tuple[list[str], list[str]]:
    """Names of the nodes that multiply by a weight: in floats, of those that must not; in integers."""
    import onnx

    with TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
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
