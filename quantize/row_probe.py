"""A probe in which each group of rows of a batch has the weights of another part of the encoder changed.

To measure what each part costs alone, a model of 24 layers would be opened and run a hundred times. Here one session runs a batch
in which the first streams are the parent's and each further copy of them has one group's weights changed: behind each MatMul of
the group the product of those rows alone with the change of its weight is added. The weights are read once for all.

A product that all streams share (of the positions, in offline encoders) keeps its weight: what its change costs is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.probe import Probe, ProbedSession, open_changed

SUFFIX = ".change"  # of the input that holds the change of a MatMul's weight

Changes = Mapping[str, np.ndarray]  # MatMul node -> what is added to its weight, f32 [in, out]


class RowProbe(Probe):
    """The parent's encoder for batches of 1 + len(groups) times `streams` rows: of the parent itself, then of each group.

    axes: of `batch_axes`. Raises ArtifactError if onnxruntime cannot load the graph.
    """

    def __init__(self, parent: Artifact, groups: Sequence[Changes], streams: int, axes: Mapping[str, int | None]):
        import onnx

        model = onnx.load(parent.encoder, load_external_data=False)
        places = {name: number for number, changes in enumerate(groups, 1) for name in changes}
        nodes = []
        for node in model.graph.node:
            nodes.append(node)
            axis = axes[node.name] if node.name in places else None
            if axis is not None:
                nodes += _added(model, node, places[node.name] * streams, streams, (1 + len(groups)) * streams, axis)
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        self.values = {}
        self._tensors, self._outputs = [], []
        added = [(name, change) for changes in groups for name, change in changes.items() if axes[name] is not None]
        self._changes = {f"{name}{SUFFIX}": change for name, change in added}
        self._session = open_changed(model, parent.encoder)

    def get_inputs(self) -> list[Any]:
        return [i for i in super().get_inputs() if i.name not in self._changes]

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return super().run(names, {**feeds, **self._changes})


def _added(model: Any, node: Any, first: int, streams: int, batch: int, axis: int) -> list[Any]:
    """The nodes that add the product of `streams` rows from `first` on with an input of the graph. axis: of the batch."""
    from onnx import TensorProto, helper, numpy_helper

    name, output = node.name, node.output[0]
    node.output[0] = f"{name}/unchanged"
    model.graph.input.append(helper.make_tensor_value_info(f"{name}{SUFFIX}", TensorProto.FLOAT, [None, None]))
    pads = np.zeros(6, np.int64)
    pads[axis], pads[3 + axis] = first, batch - first - streams
    arrays = {"first": [first], "last": [first + streams], "axis": [axis], "pads": pads}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), f"{name}/{k}") for k, v in arrays.items())
    return [
        helper.make_node("Slice", [node.input[0], *(f"{name}/{k}" for k in ("first", "last", "axis"))], [f"{name}/rows"]),
        helper.make_node("MatMul", [f"{name}/rows", f"{name}{SUFFIX}"], [f"{name}/product"]),
        helper.make_node("Pad", [f"{name}/product", f"{name}/pads"], [f"{name}/padded"]),
        helper.make_node("Add", [f"{name}/unchanged", f"{name}/padded"], [output]),
    ]


def batch_axes(
    parent: Artifact, matmuls: Sequence[str], mel: np.ndarray, lengths: np.ndarray, prompts: list[int]
) -> dict[str, int | None]:
    """MatMul node -> the axis of its input on which the streams of a batch are, None where all share it: by two runs.

    mel f32 [1, n_mels, T], lengths i64 [1], prompts: of a stream.
    """
    import onnx

    structure = onnx.load(parent.encoder, load_external_data=False)
    inputs = {node.name: node.input[0] for node in structure.graph.node if node.name in set(matmuls)}
    probe = Probe(parent.encoder, list(dict.fromkeys(inputs.values())))
    session = ProbedSession(parent, probe)
    shapes = []
    for batch in (1, 2):
        state = session.initial_state(batch, prompts * batch)
        session.encode(np.repeat(mel, batch, 0), np.repeat(lengths, batch), state)
        shapes.append({name: value.shape for name, value in probe.values.items()})
    differing = {tensor: np.flatnonzero(np.not_equal(shape, shapes[1][tensor])) for tensor, shape in shapes[0].items()}
    return {name: int(differing[tensor][0]) if len(differing[tensor]) else None for name, tensor in inputs.items()}
