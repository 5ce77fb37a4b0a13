"""Graphs of the reference checkpoint as other exporters write them: other names, axes and types."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def renamed(model, names):
    """names: old -> new name of inputs and outputs."""
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def permuted(model, name, order):
    """The input or output `name` has its axes in another order, which undoes itself."""
    _behind(model, name, lambda a, b: helper.make_node("Transpose", [a], [b], perm=order))
    dims = next(v for v in (*model.graph.input, *model.graph.output) if v.name == name).type.tensor_type.shape.dim
    copies = [onnx.TensorShapeProto.Dimension.FromString(d.SerializeToString()) for d in dims]
    for dim, place in zip(dims, order, strict=True):
        dim.CopyFrom(copies[place])


def typed(model, name, kind):
    """The input or output `name` has another type: of onnx.TensorProto."""
    value = next(v for v in (*model.graph.input, *model.graph.output) if v.name == name)
    inside = value.type.tensor_type.elem_type
    is_input = any(v.name == name for v in model.graph.input)
    _behind(model, name, lambda a, b: helper.make_node("Cast", [a], [b], to=inside if is_input else kind))
    value.type.tensor_type.elem_type = kind


def fixed(model, sizes):
    """sizes: tensor -> {axis: size}, in place of dynamic ones."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in sizes.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].Clear()
            if size:
                value.type.tensor_type.shape.dim[axis].dim_value = size
            else:
                value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"


def _behind(model, name, node):
    inner = f"{name}_inside"
    if any(v.name == name for v in model.graph.input):
        for other in model.graph.node:
            other.input[:] = [inner if i == name else i for i in other.input]
        model.graph.node.insert(0, node(name, inner))
    else:
        for other in model.graph.node:
            other.output[:] = [inner if o == name else o for o in other.output]
            other.input[:] = [inner if i == name else i for i in other.input]
        model.graph.node.append(node(inner, name))


def write(model, path: Path):
    """Without a file of weights beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def load(path: Path):
    return onnx.load(path)


def time_major(encoder):
    """As onnxruntime-genai's nemotron_speech and soniqo's speech-core have it."""
    permuted(encoder, "audio_signal", [0, 2, 1])
    permuted(encoder, "outputs", [0, 2, 1])


def layer_first(encoder):
    """As parakeet-rs and speech-core have it."""
    for name in ("cache_last_channel", "cache_last_time", "cache_last_channel_next", "cache_last_time_next"):
        permuted(encoder, name, [1, 0, 2, 3])


def i32_lengths(encoder):
    for name in ("length", "cache_last_channel_len", "encoded_lengths", "cache_last_channel_next_len"):
        typed(encoder, name, TensorProto.INT32)
