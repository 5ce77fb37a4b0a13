"""Edits at the boundary of an ONNX graph: its inputs and outputs become a consumer's, and what lies between stays as it is.

One description, a `Side` for the inputs and one for the outputs, edits a graph and runs the edited one as ours (adapted.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.graph_file import external_tensors, with_nested
from nemoport.package.copying import copy_file


@dataclass(frozen=True)
class Port:
    """A tensor of a graph as a consumer has it.

    name: its name there; axes: our axes in the consumer's order, () for the same order; dtype: the consumer's, as numpy names it,
    "" for the same.
    """

    name: str
    axes: tuple[int, ...] = ()
    dtype: str = ""

    def outward(self, values: np.ndarray) -> np.ndarray:
        """Returns our array as the consumer has it."""
        turned = values.transpose(self.axes) if self.axes else values
        return np.ascontiguousarray(turned, self.dtype or None)

    def inward(self, values: np.ndarray) -> np.ndarray:
        """Returns the consumer's array in our order of axes, of the consumer's type."""
        return values.transpose(np.argsort(self.axes)) if self.axes else values


Side = Mapping[str, Port]  # our name of each input, or of each output, in the consumer's order


def rewire(model: Any, inputs: Side, outputs: Side, sizes: Mapping[str, int] | None = None) -> None:
    """Gives a graph, onnx.ModelProto with or without its weights, the inputs and outputs of a consumer.

    An output that is not named is dropped with what only it needs; an input that is not named must be read by nothing else.
    sizes: dimension's name -> what it is fixed to, such as {"batch": 1}. Raises ArtifactError for a graph that lacks a tensor,
    reads one that the consumer has not, or has another tensor of a new name.
    """
    graph = model.graph
    found = {value.name: value for value in (*graph.input, *graph.output)}
    if missing := [name for name in (*inputs, *outputs) if name not in found]:
        raise _misfit(", ".join(inputs) + " -> " + ", ".join(outputs), f"no {', '.join(missing)}")
    _prune(graph, outputs)
    read = {name for node in with_nested(graph.node) for name in node.input}
    if unknown := [value.name for value in graph.input if value.name not in inputs and value.name in read]:
        raise _misfit("a graph that needs nothing that the consumer does not feed", f"a use of {', '.join(unknown)}")
    ports = {**inputs, **outputs}
    inner = {name: f"{port.name}/inner" if port.axes or port.dtype else port.name for name, port in ports.items()}
    taken = {name for node in graph.node for name in node.output} | {i.name for i in graph.initializer}
    if clash := sorted(taken.difference(ports).intersection({*inner.values(), *(port.name for port in ports.values())})):
        raise _misfit("a graph without tensors of the consumer's names", ", ".join(clash))
    for node in with_nested(graph.node):
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    before = [node for name, port in inputs.items() for node in _steps(port, inner[name], found[name], inward=True)]
    after = [node for name, port in outputs.items() for node in _steps(port, inner[name], found[name], inward=False)]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for side, values in ((inputs, graph.input), (outputs, graph.output)):
        changed = [_value(found[name], port, sizes or {}) for name, port in side.items()]
        del values[:]
        values.extend(changed)


def compute_input(model: Any, name: str, nodes: Sequence[Any], inputs: Sequence[Any]) -> None:
    """Puts `nodes`, which compute the input `name` from `inputs` (onnx.ValueInfoProto), in its place."""
    graph = model.graph
    place = next(i for i, value in enumerate(graph.input) if value.name == name)
    values, all_nodes = [*graph.input[:place], *inputs, *graph.input[place + 1 :]], [*nodes, *graph.node]
    del graph.input[:], graph.node[:]
    graph.input.extend(values)
    graph.node.extend(all_nodes)


def write_edited(source: Path, target: Path, edit: Any, *, beside: bool, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a graph again, changed by `edit(model)`, and its weights: beside it in `target`.data, the same bytes in the same
    places, or else within the graph. metadata: entries to add to its metadata_props."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    model = onnx.load(source, load_external_data=False)
    tensors = external_tensors(model)
    if not beside:
        load_external_data_for_model(model, str(source.parent))
    elif tensors:
        copy_file(source.with_name(f"{source.name}.data"), target.with_name(f"{target.name}.data"))
        for tensor in tensors:
            next(e for e in tensor.proto.external_data if e.key == "location").value = f"{target.name}.data"
    edit(model)
    onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | dict(metadata or {}))
    onnx.save(model, target)


def _prune(graph: Any, outputs: Side) -> None:
    """Removes the nodes and weights that none of `outputs` needs."""
    makers = {name: node for node in graph.node for name in node.output}
    needed, waiting = set(), list(outputs)
    while waiting:  # not in the graph's order: what a loop reads from around it may stand behind it
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [name for one in with_nested([makers[name]] if name in makers else []) for name in one.input]
    kept = [node for node in graph.node if needed.intersection(node.output)]
    weights = [i for i in graph.initializer if i.name in needed]
    for values, those in ((graph.node, kept), (graph.initializer, weights)):
        del values[:]
        values.extend(those)


def _steps(port: Port, inner: str, value: Any, *, inward: bool) -> list[Any]:
    """The nodes between the consumer's tensor and `inner`, ours, or the other way."""
    from onnx import helper

    kind = value.type.tensor_type.elem_type
    steps: list[tuple[str, dict[str, Any]]] = []
    if port.axes:
        steps.append(("Transpose", {"perm": [int(i) for i in np.argsort(port.axes)] if inward else list(port.axes)}))
    if port.dtype:
        steps.append(("Cast", {"to": kind if inward else helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))}))
    names = [inner, *(f"{port.name}/step{i}" for i in range(1, len(steps))), port.name] if steps else []
    if inward:
        names.reverse()
    return [
        helper.make_node(op, [source], [target], name=f"{port.name}/{op}", **attributes)
        for (op, attributes), source, target in zip(steps, names, names[1:], strict=False)
    ]


def _value(value: Any, port: Port, sizes: Mapping[str, int]) -> Any:
    from onnx import helper

    kind = value.type.tensor_type
    dims = [sizes.get(d.dim_param, d.dim_param) if d.dim_param else d.dim_value for d in kind.shape.dim]
    dims = [dims[i] for i in port.axes] if port.axes else dims
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)) if port.dtype else kind.elem_type
    return helper.make_tensor_value_info(port.name, elem, dims)


def _misfit(expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        "A graph cannot be given the inputs and outputs of this consumer.",
        expected=expected,
        found=found,
        todo="build the variant again; if it stays, report it",
    )
