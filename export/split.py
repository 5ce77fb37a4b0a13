"""Splits the fused decoder graph into predictor and joiner, for runtimes that run the predictor once a token and the joiner
once a frame. The graph is cut, not exported again: every node and every weight stays as it is, in every precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemoport.errors import ArtifactError
from nemoport.graph_file import drop_unread

FRAMES, SCORES = "encoder_outputs", "outputs"
PREDICTOR_INPUTS = ("targets", "target_length", "input_states_1", "input_states_2")
PREDICTOR_OUTPUTS = ("prednet_lengths", "output_states_1", "output_states_2")
FUSED = (FRAMES, *PREDICTOR_INPUTS), (SCORES, *PREDICTOR_OUTPUTS)
PREDICTION_OUT, PREDICTION_IN = "outputs", "decoder_outputs"  # NeMo's names and axes: [B, hidden, U]


@dataclass(frozen=True)
class SplitDecoder:
    """Two graphs, onnx.ModelProto, with the metadata of the fused one.

    predictor: targets i32 [B, U], target_length i32 [B], input_states_1 and _2 f32 [layers, B, hidden] -> outputs f32
    [B, joint_hidden, U], prednet_lengths i32 [B], output_states_1 and _2. joiner: encoder_outputs f32 [B, d, T],
    decoder_outputs f32 [B, joint_hidden, U] -> outputs f32 [B, T, U, n_scores].
    """

    predictor: Any
    joiner: Any


def split_decoder(model) -> SplitDecoder:
    """Splits a fused decoder graph.

    model: a variant's decoder, onnx.ModelProto with its weights loaded; it is not changed. The cut is behind the prediction's own
    projection, so that the joiner does not repeat what depends on tokens only. Raises ArtifactError for a graph in which frames
    and tokens do not meet at one tensor.
    """
    from onnx import TensorProto, helper, shape_inference

    graph = model.graph
    _check_names(graph)
    after_frames = _depending_on(graph, {FRAMES})
    after_tokens = _depending_on(graph, set(PREDICTOR_INPUTS))
    met = [node for node in graph.node if after_frames.intersection(node.output)]
    cut = {name for node in met for name in node.input if name in after_tokens - after_frames}
    mixed = after_frames.intersection(PREDICTOR_OUTPUTS)
    if len(cut) != 1 or mixed:
        raise _no_cut(f"they meet at {', '.join(sorted(cut)) or 'no tensor'}; behind the frames: {', '.join(mixed) or 'scores'}")
    (joined,) = cut
    kind, hidden = _kind_and_width(shape_inference.infer_shapes(model).graph.value_info, joined)
    inputs, outputs = ({v.name: v for v in values} for values in (graph.input, graph.output))
    shape = ["batch", hidden, "tokens"]
    predictor = _part(
        model,
        _needed(graph, [*PREDICTOR_OUTPUTS, joined]) + _outward(joined, kind),
        [inputs[name] for name in PREDICTOR_INPUTS],
        [
            helper.make_tensor_value_info(PREDICTION_OUT, TensorProto.FLOAT, shape),
            *(outputs[name] for name in PREDICTOR_OUTPUTS),
        ],
    )
    joiner = _part(
        model,
        _inward(joined, kind) + _needed(graph, [SCORES], without=joined),
        [inputs[FRAMES], helper.make_tensor_value_info(PREDICTION_IN, TensorProto.FLOAT, shape)],
        [outputs[SCORES]],
    )
    return SplitDecoder(predictor, joiner)


def _check_names(graph) -> None:
    weights = {i.name for i in graph.initializer}
    found = tuple(v.name for v in graph.input if v.name not in weights), tuple(v.name for v in graph.output)
    if found != FUSED:
        raise _no_cut(_signature(found))


def _signature(names) -> str:
    return " -> ".join(", ".join(side) for side in names)


def _no_cut(found: str) -> ArtifactError:
    return ArtifactError(
        "The decoder graph cannot be split into predictor and joiner.",
        expected=f"{_signature(FUSED)}, where frames and tokens meet at one tensor",
        found=found,
        todo="build the variant again; if it stays, report it",
    )


def _depending_on(graph, names: set[str]) -> set[str]:
    """`names`, and every tensor that is computed from one of them."""
    reached = set(names)
    for node in graph.node:  # in the order of their dependence, as ONNX demands
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _needed(graph, names: list[str], without: str | None = None) -> list:
    """The nodes that compute `names`, in the graph's order, without those that only `without` depends on."""
    needed, kept = set(names), []
    for node in reversed(graph.node):
        made = needed.intersection(node.output) - {without}
        if made:
            kept.append(node)
            needed.update(name for name in node.input if name)
    return kept[::-1]


def _kind_and_width(values, name: str) -> tuple[int, int]:
    """Element type and last dimension of a tensor, by shape inference. Raises ArtifactError where they are unknown."""
    for value in values:
        kind = value.type.tensor_type
        if value.name == name and len(kind.shape.dim) == 4 and kind.shape.dim[-1].dim_value:
            return kind.elem_type, kind.shape.dim[-1].dim_value
    raise _no_cut(f"{name}, which is no [B, 1, U, joint_hidden]")


def _outward(joined: str, kind: int) -> list:
    """Nodes from `joined`, [B, 1, U, H] of type `kind`, to the predictor's output, f32 [B, H, U]. None rounds: f32 holds f16."""
    from onnx import TensorProto, helper

    axes, squeezed, turned = (f"{PREDICTION_OUT}/{step}" for step in ("axes", "squeezed", "turned"))
    return [
        helper.make_node("Constant", [], [axes], value=helper.make_tensor(axes, TensorProto.INT64, [1], [1])),
        helper.make_node("Squeeze", [joined, axes], [squeezed]),
        helper.make_node("Transpose", [squeezed], [turned], perm=[0, 2, 1]),
        _cast(TensorProto.FLOAT, kind, turned, PREDICTION_OUT),
    ]


def _inward(joined: str, kind: int) -> list:
    """Nodes from the joiner's input, f32 [B, H, U], to `joined`: the inverse of `_outward`."""
    from onnx import TensorProto, helper

    axes, cast, turned = (f"{PREDICTION_IN}/{step}" for step in ("axes", "cast", "turned"))
    return [
        helper.make_node("Constant", [], [axes], value=helper.make_tensor(axes, TensorProto.INT64, [1], [1])),
        _cast(kind, TensorProto.FLOAT, PREDICTION_IN, cast),
        helper.make_node("Transpose", [cast], [turned], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", [turned, axes], [joined]),
    ]


def _cast(wanted: int, kind: int, source: str, target: str):
    """The node that casts `source`, of type `kind`, to the type `wanted`."""
    from onnx import helper

    if wanted == kind:
        return helper.make_node("Identity", [source], [target])
    return helper.make_node("Cast", [source], [target], to=wanted)


def _part(model, nodes: list, inputs: list, outputs: list):
    """A copy of `model` with these nodes, the weights that they read, and these inputs and outputs."""
    from onnx import ModelProto

    part = ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    for values, kept in ((graph.node, nodes), (graph.input, inputs), (graph.output, outputs)):
        del values[:]
        values.extend(kept)
    drop_unread(graph)
    del graph.value_info[:]
    return part
