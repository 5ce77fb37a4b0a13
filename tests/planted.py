"""Faults of published conversions, planted in the graphs of a tiny model, one at a time."""

import json

import damage
import foreign_graphs as graphs
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ENCODER, DECODER = "encoder.onnx", "decoder_joint.onnx"


def edited(folder, name, edit):
    """edit: changes an onnx.ModelProto in place."""
    model = onnx.load(folder / name)
    edit(model)
    onnx.save(model, folder / name)


def settings(folder, **values):
    raw = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def built_in(model, name, values):
    """The input is a constant of the graph, as a tracer leaves one that the wrapper does not take."""
    model.graph.input.remove(next(value for value in model.graph.input if value.name == name))
    constant(model, name, values)


def without_output(model, *names):
    for name in names:
        model.graph.output.remove(next(value for value in model.graph.output if value.name == name))


def inserted(model, name, *nodes):
    """Nodes behind an input or before an output: (a, b) -> a list of nodes, a chain from a to b."""
    inner = f"{name}_inner"
    is_input = any(value.name == name for value in model.graph.input)
    for node in model.graph.node:
        node.input[:] = [inner if i == name else i for i in node.input]
        node.output[:] = [inner if o == name else o for o in node.output]
    ends = (name, inner) if is_input else (inner, name)
    made = [node for make in nodes for node in make(*ends)]
    for place, node in enumerate(made):
        if is_input:
            model.graph.node.insert(place, node)
        else:
            model.graph.node.append(node)


def pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "encoder.int8.onnx").write_text(text)


def cut_weights(folder):
    model = onnx.load(folder / DECODER)
    onnx.save(model, folder / DECODER, save_as_external_data=True, location=f"{DECODER}.data", size_threshold=1024)
    with open(folder / f"{DECODER}.data", "r+b") as file:
        file.truncate(2000)


def linked_weights(folder):
    cut_weights(folder)
    outside = folder.parent / "elsewhere.data"
    (folder / f"{DECODER}.data").rename(outside)
    (folder / f"{DECODER}.data").symlink_to(outside)


def nan(folder):
    def edit(model):
        lstm = next(node for node in model.graph.node if node.op_type == "LSTM")
        tensor = next(one for one in model.graph.initializer if one.name == lstm.input[2])
        values = numpy_helper.to_array(tensor).copy()
        values.flat[values.size // 2] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edited(folder, DECODER, edit)


def offline(folder):
    def edit(model):
        shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
        for name in ("cache_last_channel", "cache_last_time"):
            built_in(model, name, np.zeros(shapes[name], np.float32))
        built_in(model, "cache_last_channel_len", np.zeros(1, np.int64))
        without_output(model, *(v.name for v in list(model.graph.output) if "cache" in v.name))

    edited(folder, ENCODER, edit)


def other_left_context(folder):
    settings(folder, left_context=56)


def shorter_attention(folder):
    """The oldest cached frame is not seen."""

    def edit(model):
        size = next(v for v in model.graph.input if v.name == "cache_last_channel").type.tensor_type.shape.dim[2].dim_value
        seen = np.ones((1, 1, size, 1), np.float32)
        seen[:, :, 0] = 0
        mask = constant(model, "seen", seen)
        inserted(model, "cache_last_channel", lambda a, b: [helper.make_node("Mul", [a, mask], [b])])

    edited(folder, ENCODER, edit)


def caches_that_shrink(folder):
    def edit(model):
        least = constant(model, "least", np.array(40, np.int64))
        inserted(model, "cache_last_channel_next_len", lambda a, b: [helper.make_node("Min", [a, least], [b])])

    edited(folder, ENCODER, edit)


def unstated_sizes(folder):
    settings(folder, left_context=None)
    edited(
        folder,
        ENCODER,
        lambda model: graphs.fixed(
            model, {f"cache_last_{n}{end}": {i: None} for n, i in (("channel", 2), ("time", 3)) for end in ("", "_next")}
        ),
    )


def swapped_names(folder):
    names = {"cache_last_channel": "cache_last_time", "cache_last_time": "cache_last_channel"}
    edited(folder, ENCODER, lambda model: graphs.renamed(model, names))


def layer_first_outputs(folder):
    edited(folder, ENCODER, lambda model: graphs.permuted(model, "cache_last_channel_next", [1, 0, 2, 3]))


def reversed_layers(folder):
    edited(folder, ENCODER, damage.reverse_layers)


def rolled_streams(folder):
    edited(folder, ENCODER, damage.roll_streams)


def prompt_built_in(folder):
    edited(folder, ENCODER, lambda model: built_in(model, "prompt_index", np.array([0])))


def prompt_ignored(folder):
    def edit(model):
        zero = constant(model, "zero_slot", np.array(0, np.int64))
        inserted(model, "prompt_index", lambda a, b: [helper.make_node("Mul", [a, zero], [b])])

    edited(folder, ENCODER, edit)


def log_softmax(folder):
    edited(
        folder,
        DECODER,
        lambda model: inserted(model, "outputs", lambda a, b: [helper.make_node("LogSoftmax", [a], [b], axis=-1)]),
    )


def log_softmax_by_hand(folder):
    def nodes(a, b):
        return [
            helper.make_node("ReduceLogSumExp", [a], ["sum"], axes=[-1], keepdims=1),
            helper.make_node("Sub", [a, "sum"], [b]),
        ]

    edited(folder, DECODER, lambda model: inserted(model, "outputs", nodes))


def softmax_by_hand(folder):
    def nodes(a, b):
        return [
            helper.make_node("Exp", [a], ["exp"]),
            helper.make_node("ReduceSum", ["exp", "last"], ["sum"], keepdims=1),
            helper.make_node("Div", ["exp", "sum"], [b]),
        ]

    def edit(model):
        constant(model, "last", np.array([-1]))
        inserted(model, "outputs", nodes)

    edited(folder, DECODER, edit)


def vocabulary(folder, change):
    path = folder / "vocab.txt"
    pieces = [line.rpartition(" ")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(change(pieces))), encoding="utf-8")


def no_blank(folder):
    settings(folder, blank_id=None)
    vocabulary(folder, lambda pieces: pieces[:-1])


def blank_first(folder):
    vocabulary(folder, lambda pieces: [pieces[-1], *pieces[:-1]])


def other_blank(folder):
    settings(folder, blank_id=0)


def no_vocabulary(folder):
    (folder / "vocab.txt").unlink()


def other_vocabulary(folder):
    vocabulary(folder, lambda pieces: [*pieces[:10], "more", pieces[-1]])


def no_decoder(folder):
    (folder / DECODER).unlink()


def quantized(model, node, place, kind, *, whole_scale, activations=None):
    """The weight of a node becomes 8 bits and a DequantizeLinear; activations: type of its other input, by QuantizeLinear."""
    name = node.input[place]
    weight = numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == name))
    axis = 0 if node.op_type == "Conv" else weight.ndim - 1
    others = tuple(i for i in range(weight.ndim) if whole_scale or i != axis)
    scales = np.maximum(np.abs(weight).max(others, keepdims=True), 1e-6) / 127
    constant(model, f"{name}_q", np.clip(np.round(weight / scales), -127, 127).astype(np.int8))
    constant(model, f"{name}_s", np.float32(scales.reshape(()) if whole_scale else scales.reshape(-1)))
    zero = constant(model, f"{name}_z", np.zeros(() if whole_scale else scales.size, np.int8))
    made = [helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", zero], [f"{name}_d"], axis=axis)]
    if activations is not None:
        values = node.input[1 - place]
        pair = [constant(model, f"{name}_xs", np.float32(0.1)), constant(model, f"{name}_xz", activations(128))]
        made.append(helper.make_node("QuantizeLinear", [values, *pair], [f"{name}_xq"]))
        made.append(helper.make_node("DequantizeLinear", [f"{name}_xq", *pair], [f"{name}_xd"]))
        node.input[1 - place] = f"{name}_xd"
    node.input[place] = f"{name}_d"
    at = list(model.graph.node).index(node)
    for i, one in enumerate(made):
        model.graph.node.insert(at + i, one)


def product(model):
    """A MatMul of a layer, and its weight's place."""
    dims = {one.name: one.dims for one in model.graph.initializer if len(one.dims) == 2 and np.prod(one.dims) >= 4096}
    matmuls = (node for node in model.graph.node if node.op_type == "MatMul" and "pre_encode" not in node.name)
    return next(node for node in matmuls if node.input[1] in dims)


def quantized_subsampling(folder):
    def edit(model):
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        quantized(model, conv, 1, np.int8, whole_scale=False, activations=np.uint8)

    edited(folder, ENCODER, edit)


def whole_scale(folder):
    edited(folder, ENCODER, lambda model: quantized(model, product(model), 1, np.int8, whole_scale=True))


def whole_range(folder):
    def edit(model):
        node = product(model)
        name = node.input[0]
        made = [
            helper.make_node("DynamicQuantizeLinear", [name], ["dq", "ds", "dz"]),
            helper.make_node("DequantizeLinear", ["dq", "ds", "dz"], ["dd"]),
        ]
        at = list(model.graph.node).index(node)
        node.input[0] = "dd"
        for i, one in enumerate(made):
            model.graph.node.insert(at + i, one)

    edited(folder, ENCODER, edit)


def full_range(folder):
    edited(folder, ENCODER, lambda m: quantized(m, product(m), 1, np.int8, whole_scale=False, activations=np.uint8))


def per_feature(folder):
    settings(folder, preprocessor={"normalize": "per_feature"})


def other_guard(folder):
    settings(folder, log_zero_guard_value=1e-5)


def other_guard_in_a_front_end(folder):
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Unsqueeze", ["waveforms", "one"], ["bands"]),
        helper.make_node("Abs", ["bands"], ["energy"]),
        helper.make_node("Add", ["energy", "guard"], ["kept"]),
        helper.make_node("Log", ["kept"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "front_end",
        [value("waveforms", TensorProto.FLOAT, [1, None])],
        [value("features", TensorProto.FLOAT, [1, 1, None])],
        [numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.float32(1e-3), "guard")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "nemo128.onnx")


def fixed_window(folder):
    edited(folder, ENCODER, lambda model: graphs.fixed(model, {"audio_signal": {2: 65}}))


def dropping(folder):
    """Two frames of every window are dropped, also of the first one, as in NeMo's own export. (Of a later one two too many.)"""

    def edit(model):
        for name, values in (("two", [2]), ("end", [2**31 - 1]), ("axis", [2])):
            constant(model, name, np.array(values))
        cut = ["two", "end", "axis"]
        inserted(model, "outputs", lambda a, b: [helper.make_node("Slice", [a, *cut], [b])])
        inserted(model, "encoded_lengths", lambda a, b: [helper.make_node("Sub", [a, "two"], [b])])

    edited(folder, ENCODER, edit)


def length_ignored(folder):
    def edit(model):
        zero, place = constant(model, "no_length", np.array(0)), constant(model, "place", np.array([2]))

        def nodes(a, b):
            return [
                helper.make_node("Shape", ["audio_signal"], ["sizes"]),
                helper.make_node("Gather", ["sizes", place], ["all_of_it"]),
                helper.make_node("Mul", [a, zero], ["nothing"]),
                helper.make_node("Add", ["nothing", "all_of_it"], [b]),
            ]

        inserted(model, "length", nodes)

    edited(folder, ENCODER, edit)


def uncounted(folder):
    edited(folder, ENCODER, lambda model: without_output(model, "encoded_lengths"))


def lengths_in_fp16(folder):
    def nodes(a, b):
        return [
            helper.make_node("Cast", [a], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Add", ["half", "none"], ["sum"]),
            helper.make_node("Cast", ["sum"], [b], to=TensorProto.INT64),
        ]

    def edit(model):
        constant(model, "none", np.float16(0))
        inserted(model, "length", nodes)

    edited(folder, ENCODER, edit)


def halves(folder):
    edited(folder, ENCODER, lambda model: graphs.typed(model, "audio_signal", TensorProto.FLOAT16))


def infinite(folder):
    def edit(model):
        large = constant(model, "large", np.float32(1e38))
        twice = [["outputs_a", large], ["outputs_b", large]]

        def nodes(a, b):
            return [
                helper.make_node("Mul", [a, large], [twice[0][0]]),
                helper.make_node("Mul", twice[0], [twice[1][0]]),
                helper.make_node("Mul", twice[1], [b]),
            ]

        inserted(model, "outputs", nodes)

    edited(folder, ENCODER, edit)


def shapes_that_do_not_meet(folder):
    def edit(model):
        wrong = constant(model, "wrong", np.zeros((1, 7, 3), np.float32))
        inserted(model, "outputs", lambda a, b: [helper.make_node("Add", [a, wrong], [b])])

    edited(folder, ENCODER, edit)


def own_operator(folder):
    def edit(model):
        model.opset_import.append(helper.make_opsetid("my.ops", 1))
        inserted(model, "outputs", lambda a, b: [helper.make_node("Mine", [a], [b], domain="my.ops")])

    edited(folder, ENCODER, edit)


def newer_opset(folder):
    def edit(model):
        next(one for one in model.opset_import if one.domain == "").version = 999

    edited(folder, ENCODER, edit)
