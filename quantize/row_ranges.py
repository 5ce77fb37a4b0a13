"""Ranges of activations by row, in place of one range for the whole tensor.

`DynamicQuantizeLinear` has one range for all streams of a batch and all frames of a window, so that one stream changes the last
bits of another, and a loud one takes the resolution of its neighbours. Here each row, one frame of one stream, has a range of its
own, in standard operators. With q u8, s and low f32 [..., rows, 1], and w the weight:

- symmetric, for what is above and below 0 alike: x = s (q - 128), s = max |x| / 127, and x w = s (q - 128) w;
- behind a SiLU, which is never below -0.28: x = s q + low, s = (max x - low) / 255, low = min x, and x w = s q w + low (sum of
  the rows of w). It is worth up to a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_CONSTANTS = {
    "row.least": np.float32(1e-30),  # for a row of equal values, whose range would be divided by
    "row.127": np.float32(127),
    "row.255": np.float32(255),
    "row.one": np.float32(1),
    "row.middle": np.uint8(128),
    "row.bottom": np.uint8(0),
}


def by_row(model: Any) -> None:
    """Rewrites an onnx.ModelProto of opset 17, with its weights, in which onnxruntime has quantized MatMuls dynamically.

    Its products are MatMulInteger(q, w) -> Cast -> Mul(scale of x times scale of w). They become MatMulInteger(q, w) -> Cast ->
    Mul(scale of w) -> Mul(scale of x), with low times the sum of w's rows added behind a SiLU.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {i.name: i for i in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in _CONSTANTS.items())
    scales: dict[str, Any] = {}  # of an activation -> its DynamicQuantizeLinear
    zeros: dict[str, str] = {}  # zero point of an activation -> the constant in its place
    factors: dict[str, tuple[str, str]] = {}  # scale of x times scale of w -> both
    nodes = []
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            low = _behind_silu(producers.get(node.input[0]), producers)
            scales[node.output[1]], zeros[node.output[2]] = node, "row.bottom" if low else "row.middle"
            nodes += _from_low(node) if low else _symmetric(node)
        elif node.op_type == "Mul" and node.input[0] in scales:
            factors[node.output[0]] = (node.input[0], node.input[1])
        elif node.op_type == "Mul" and node.input[1] in factors:
            scale, of_column = factors[node.input[1]]
            integers = producers[producers[node.input[0]].input[0]]
            nodes += _product(
                node, scale, of_column, f"{scales[scale].output[0]}.low" if integers.input[2] == "row.bottom" else ""
            )
            if integers.input[2] == "row.bottom":
                w = numpy_helper.to_array(weights[integers.input[1]]).sum(0, dtype=np.int64)
                sums = (w * numpy_helper.to_array(weights[of_column]).astype(np.float64)).astype(np.float32)
                graph.initializer.append(numpy_helper.from_array(sums, f"{node.output[0]}.sums"))
        else:
            if node.op_type == "MatMulInteger":
                node.input[2] = zeros.get(node.input[2], node.input[2])
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _behind_silu(node: Any, producers: dict[str, Any]) -> bool:
    """Whether a node gives x sigmoid(x), or that times a constant."""
    while node is not None and node.op_type == "Mul":
        inner = [producers[name] for name in node.input if name in producers]
        if any(one.op_type == "Sigmoid" for one in inner):
            return True
        node = inner[0] if len(inner) == 1 else None
    return False


def _symmetric(node: Any) -> list[Any]:
    (x,), (q, scale, _) = node.input, node.output
    return _chain(
        node,
        ("Abs", [x], f"{q}.absolute", {}),
        ("ReduceMax", [f"{q}.absolute"], f"{q}.high", {"axes": [-1]}),
        ("Max", [f"{q}.high", "row.least"], f"{q}.range", {}),
        ("Div", [f"{q}.range", "row.127"], scale, {}),
        ("Div", [x, scale], f"{q}.steps", {}),
        ("QuantizeLinear", [f"{q}.steps", "row.one", "row.middle"], q, {}),
    )


def _from_low(node: Any) -> list[Any]:
    (x,), (q, scale, _) = node.input, node.output
    return _chain(
        node,
        ("ReduceMin", [x], f"{q}.low", {"axes": [-1]}),
        ("ReduceMax", [x], f"{q}.high", {"axes": [-1]}),
        ("Sub", [f"{q}.high", f"{q}.low"], f"{q}.width", {}),
        ("Max", [f"{q}.width", "row.least"], f"{q}.range", {}),
        ("Div", [f"{q}.range", "row.255"], scale, {}),
        ("Sub", [x, f"{q}.low"], f"{q}.above", {}),
        ("Div", [f"{q}.above", scale], f"{q}.steps", {}),
        ("QuantizeLinear", [f"{q}.steps", "row.one", "row.bottom"], q, {}),
    )


def _product(node: Any, scale: str, of_column: str, low: str) -> list[Any]:
    y = node.output[0]
    steps = [
        ("Mul", [node.input[0], of_column], f"{y}.by_column", {}),
        ("Mul", [f"{y}.by_column", scale], f"{y}.by_row" if low else y, {}),
    ]
    if low:
        steps += [("Mul", [low, f"{y}.sums"], f"{y}.of_low", {}), ("Add", [f"{y}.by_row", f"{y}.of_low"], y, {})]
    return _chain(node, *steps)


def _chain(node: Any, *steps: tuple[str, list[str], str, dict[str, Any]]) -> list[Any]:
    """Makes nodes (type, inputs, output, attributes), named after the one whose place they take."""
    from onnx import helper

    return [
        helper.make_node(kind, inputs, [output], f"{node.name}.{at}.{kind}", **more)
        for at, (kind, inputs, output, more) in enumerate(steps)
    ]
