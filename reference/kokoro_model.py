"""The graph of Kokoro-82M as it is published in INT8, with its convolutions as products that onnxruntime has fast kernels for.

onnxruntime's ConvInteger takes u8 weights only. As a MatMulInteger of gathered columns with s8 weights the same integers take a
third less processor time where there is VNNI (AMD EPYC Zen 5, one thread, 2.67 s of speech: 0.58 s for 0.84). Without VNNI
products of u8 and s8 can overflow, so that the weights stay u8 there: the integers are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

TO_THE_END = 2**31 - 1


class _Graph:
    """A graph with who makes and who uses each of its values."""

    def __init__(self, graph: onnx.GraphProto):
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def array(self, name: str) -> np.ndarray:
        """The value of a weight."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.weights[name])

    def only_user(self, node: onnx.NodeProto, kind: str) -> onnx.NodeProto:
        """The one node of this kind that takes the node's output. Raises ValueError for any other."""
        found = [user.op_type for user in self.users.get(node.output[0], [])]
        if found != [kind]:
            raise ValueError(f"{node.name}: expected one {kind} behind it, found {found}")
        return self.users[node.output[0]][0]

    def float_bias(self, addition: onnx.NodeProto, product: str) -> str:
        """Name of the f32 bias that is rounded to integers for this addition: by Div, Floor, Cast, Reshape."""
        (name,) = (name for name in addition.input if name != product)
        for kind in ("Reshape", "Cast", "Floor", "Div"):
            if self.maker[name].op_type != kind:
                raise ValueError(f"{addition.name}: expected a {kind} where its bias is made, found {self.maker[name].op_type}")
            name = self.maker[name].input[0]
        return name


def with_integer_products(model: onnx.ModelProto, signed: bool) -> onnx.ModelProto:
    """Puts a MatMulInteger in place of every ConvInteger; changes ``model``, of opset 18 or later, and returns it.

    ``signed``: the weights become s8. The convolutions are those of onnxruntime's ``quantize_dynamic``, over one dimension and in
    one group: ConvInteger, with or without a bias in integers, Cast, Mul by both scales. A bias is added unrounded. Raises
    ValueError for others.
    """
    found = _Graph(model.graph)
    new: dict[str, list[onnx.NodeProto]] = {}  # the product that each is put in the place of -> nodes
    for conv in [node for node in model.graph.node if node.op_type == "ConvInteger"]:
        last, bias = conv, ""
        if found.users[conv.output[0]][0].op_type == "Add":
            last = found.only_user(conv, "Add")
            bias = found.float_bias(last, conv.output[0])
        scaled = found.only_user(found.only_user(last, "Cast"), "Mul")
        (scale,) = (name for name in scaled.input if name in found.maker and found.maker[name].op_type == "Mul")
        new[scaled.name] = _product(found, conv, scale, bias, scaled.output[0], signed)
    nodes = [made for node in model.graph.node for made in new.get(node.name, [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return without_dead_ends(model)


def _product(found: _Graph, conv: onnx.NodeProto, scale: str, bias: str, out: str, signed: bool) -> list[onnx.NodeProto]:
    """Nodes that compute ``out`` f32 [1, channels, frames]: columns of all taps side by side, times weights [columns, out]."""
    from onnx import TensorProto, helper, numpy_helper

    how: dict[str, Any] = dict(group=1, dilations=[1], strides=[1], pads=[0, 0])
    how |= {attribute.name: helper.get_attribute_value(attribute) for attribute in conv.attribute}
    weights, zero = found.array(conv.input[1]), found.array(conv.input[3])
    if how["group"] != 1 or weights.ndim != 3 or weights.dtype != np.uint8:
        raise ValueError(
            f"{conv.name}: expected u8 weights over one dimension in one group, found {weights.dtype} {weights.shape}"
        )
    if signed:
        weights, zero = ((values.astype(np.int16) - 128).astype(np.int8) for values in (weights, zero))
    taps, (dilation,), (stride,) = weights.shape[2], how["dilations"], how["strides"]
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, *inputs: str | np.ndarray | list[int], **attributes: Any) -> str:
        """Appends a node; what is no name among its inputs becomes a weight."""
        name = f"{conv.name}_{len(nodes)}"
        names = []
        for number, value in enumerate(inputs):
            if not isinstance(value, str):
                found.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}_{number}"))
                value = f"{name}_{number}"
            names.append(value)
        nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return name

    columns = add("Transpose", conv.input[0], perm=[0, 2, 1])
    if any(how["pads"]):
        columns = add("Pad", columns, np.array([0, how["pads"][0], 0, 0, how["pads"][1], 0]), conv.input[2])
    each = []
    for tap in range(taps):
        end = -(taps - 1 - tap) * dilation or TO_THE_END
        each.append(add("Slice", columns, [tap * dilation], [end], [1], [stride]))
    columns = add("Concat", *each, axis=2)
    flat = np.ascontiguousarray(weights.transpose(2, 1, 0).reshape(-1, weights.shape[0]))
    sums = add("Cast", add("MatMulInteger", columns, flat, conv.input[2], zero), to=TensorProto.FLOAT)
    sums = add("Mul", sums, scale)
    sums = add("Add", sums, bias) if bias else sums
    nodes.append(helper.make_node("Transpose", [sums], [out], f"{conv.name}_out", perm=[0, 2, 1]))
    return nodes


def without_dead_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the nodes and weights that no output of the graph needs; changes ``model`` and returns it."""
    graph = model.graph
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)
    return model
