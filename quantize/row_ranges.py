"""Ranges of activations by row, in place of one range for the whole tensor.

`DynamicQuantizeLinear` has one range for all streams of a batch and all frames of a window, so that one stream changes the last
bits of another, and a loud one takes the resolution of its neighbours. Here each row, one frame of one stream, has a range of its
own, in standard operators. With q u8, range and low f32 [..., rows, 1], and w the weight:

- symmetric, for what is above and below 0 alike: x = range (q - 128) / 127, range = max |x|;
- behind a SiLU, which is never below -0.28: x = range q / 255 + low, range = max x - low, low = min x, and
  x w = range (q / 255) w + low (sum of the rows of w). It is worth up to a bit.

q / 127 and q / 255 are QuantizeLinear and DequantizeLinear with a constant scale. onnxruntime makes one integer product with an
f32 output of these and the weight's DequantizeLinear (MatMulIntegerToFloat): a third fewer nodes than with MatMulInteger.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nemoport.graph_file import drop_unread

_CONSTANTS = {
    "row.least": np.float32(1e-30),  # for a row of equal values, whose range would be divided by
    "row.127th": np.float32(1 / 127),
    "row.255th": np.float32(1 / 255),
    "row.middle": np.uint8(128),
    "row.bottom": np.uint8(0),
}


def by_row(model: Any) -> None:
    """Rewrites an onnx.ModelProto of opset 17, with its weights, in which onnxruntime has quantized MatMuls by column.

    Its products are MatMulInteger(q, w) -> Cast -> Mul(scale of x times scale of w). They become MatMul of two DequantizeLinear
    -> Mul(range of x), with low times the sum of w's rows added behind a SiLU.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {i.name: i for i in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    integers = {node.output[0] for node in graph.node if node.op_type == "MatMulInteger"}  # which a Cast reads
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in _CONSTANTS.items())
    quantizers: dict[str, Any] = {}  # scale of an activation -> its DynamicQuantizeLinear
    factors: dict[str, tuple[str, str]] = {}  # scale of x times scale of w -> both
    nodes = []
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            quantizers[node.output[1]] = node
            nodes += _quantized(node, _behind_silu(producers.get(node.input[0]), producers))
        elif node.op_type == "Mul" and node.input[0] in quantizers:
            factors[node.output[0]] = (node.input[0], node.input[1])
        elif node.op_type == "Mul" and node.input[1] in factors:
            scale, of_column = factors[node.input[1]]
            quantizer, product = quantizers[scale], producers[producers[node.input[0]].input[0]]
            low = _behind_silu(producers.get(quantizer.input[0]), producers)
            nodes += _product(product, node.output[0], of_column, low)
            if low:
                w = numpy_helper.to_array(weights[product.input[1]]).sum(0, dtype=np.int64)
                sums = (w * numpy_helper.to_array(weights[of_column]).astype(np.float64)).astype(np.float32)
                graph.initializer.append(numpy_helper.from_array(sums, f"{node.output[0]}.sums"))
        elif node.op_type != "MatMulInteger" and not integers.intersection(node.input):
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def _behind_silu(node: Any, producers: dict[str, Any]) -> bool:
    """Whether a node gives x sigmoid(x), or that times a constant."""
    while node is not None and node.op_type == "Mul":
        inner = [producers[name] for name in node.input if name in producers]
        if any(one.op_type == "Sigmoid" for one in inner):
            return True
        node = inner[0] if len(inner) == 1 else None
    return False


def _quantized(node: Any, behind_silu: bool) -> list[Any]:
    (x,), (q, _, _) = node.input, node.output
    if behind_silu:
        level, zero, above = "row.255th", "row.bottom", f"{q}.above"
        steps = [
            ("ReduceMin", [x], f"{q}.low", {"axes": [-1]}),
            ("ReduceMax", [x], f"{q}.high", {"axes": [-1]}),
            ("Sub", [f"{q}.high", f"{q}.low"], f"{q}.width", {}),
            ("Max", [f"{q}.width", "row.least"], f"{q}.range", {}),
            ("Sub", [x, f"{q}.low"], above, {}),
        ]
    else:
        level, zero, above = "row.127th", "row.middle", x
        steps = [
            ("Abs", [x], f"{q}.absolute", {}),
            ("ReduceMax", [f"{q}.absolute"], f"{q}.high", {"axes": [-1]}),
            ("Max", [f"{q}.high", "row.least"], f"{q}.range", {}),
        ]
    steps += [
        ("Div", [above, f"{q}.range"], f"{q}.share", {}),
        ("QuantizeLinear", [f"{q}.share", level, zero], q, {}),
        ("DequantizeLinear", [q, level, zero], f"{q}.dequantized", {}),
    ]
    return _chain(node.name, *steps)


def _product(node: Any, y: str, of_column: str, behind_silu: bool) -> list[Any]:
    """Makes the nodes in the place of a MatMulInteger, whose MatMul has the name of the one that was quantized."""
    from onnx import helper

    q, w, _, _ = node.input  # the zero point of w, a vector of zeros, would slow the kernel down
    name = node.name.removesuffix("_quant")
    product = helper.make_node("MatMul", [f"{q}.dequantized", f"{y}.weight"], [f"{y}.share"], name)
    steps = [("Mul", [f"{y}.share", f"{q}.range"], f"{y}.by_row" if behind_silu else y, {})]
    if behind_silu:
        steps += [
            ("Mul", [f"{q}.low", f"{y}.sums"], f"{y}.of_low", {}),
            ("Add", [f"{y}.by_row", f"{y}.of_low"], y, {}),
        ]
    return [
        *_chain(name, ("DequantizeLinear", [w, of_column], f"{y}.weight", {"axis": 1})),
        product,
        *_chain(f"{name}.y", *steps),
    ]


def _chain(name: str, *steps: tuple[str, list[str], str, dict[str, Any]]) -> list[Any]:
    """Makes nodes (type, inputs, output, attributes), whose names begin with `name`."""
    from onnx import helper

    return [
        helper.make_node(kind, inputs, [output], f"{name}.{at}.{kind}", **more)
        for at, (kind, inputs, output, more) in enumerate(steps)
    ]
