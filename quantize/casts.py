"""Repairs of graphs that the fp16 converter wrote: the order of nodes, and casts to f16 and back between nodes kept f32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nemoport.errors import ArtifactError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def drop_round_trips(graph: GraphProto) -> None:
    """Removes casts f32 -> f16 -> f32. `graph` has the type of every tensor in value_info.

    The converter casts to f16 behind every node kept f32 and back before the next: a value too large for f16, for which
    the nodes were kept, would still become infinite on the way. It also makes one cast per reader under one name,
    which is not a valid graph.
    """
    from onnx import TensorProto, helper

    floats = {v.name for v in [*graph.value_info, *graph.input] if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    to_half = {n.output[0]: n.input[0] for n in graph.node if _casts(n, TensorProto.FLOAT16) and n.input[0] in floats}
    outputs = {o.name for o in graph.output}
    direct, nodes, made = {}, [], set()
    for node in graph.node:
        if _casts(node, TensorProto.FLOAT) and node.input[0] in to_half:
            source = to_half[node.input[0]]
            if node.output[0] not in outputs:
                direct[node.output[0]] = source
                continue
            node = helper.make_node("Identity", [source], node.output, name=node.name)  # an output keeps its name
        if not made.issuperset(node.output):
            made.update(node.output)
            nodes.append(node)
    for node in nodes:
        node.input[:] = [direct.get(name, name) for name in node.input]
    read = {name for node in nodes for name in node.input} | outputs
    _replace(graph, [n for n in nodes if n.output[0] in read or not _casts(n, TensorProto.FLOAT16)])


def sort_nodes(graph: GraphProto) -> None:
    """Sorts the nodes so that each stands behind those it reads from; the converter appends its casts at the end.

    Raises ArtifactError if there is no such order.
    """
    ready = {""} | {i.name for i in graph.input} | {i.name for i in graph.initializer}
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if ready.issuperset(node.input):
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ArtifactError(
                "The nodes of the fp16 graph cannot be ordered.",
                expected="every tensor computed by a node before those that read it",
                found=f"a cycle, or a tensor that no node computes, near {later[0].name}",
                todo="export the fp32 artifact again; if that does not help, report this checkpoint",
            )
        waiting = later
    _replace(graph, ordered)


def detach_loop_bodies(graph: GraphProto) -> dict[str, GraphProto]:
    """Takes the body out of every Loop and lists the tensors that it reads from outside among the node's inputs, so that
    converters and sorters treat the Loop as an ordinary node and leave its body alone. Returns node name -> body, for
    `attach_loop_bodies`."""
    bodies = {}
    for node in graph.node:
        if node.op_type == "Loop":
            (body,) = (a.g for a in node.attribute if a.name == "body")
            bodies[node.name] = type(body).FromString(body.SerializeToString())
            del node.attribute[:]
            node.input.extend(_captured(bodies[node.name]))
    return bodies


def attach_loop_bodies(graph: GraphProto, bodies: dict[str, GraphProto]) -> None:
    """Puts the bodies back into their Loops, under the present names of the tensors that they read from outside."""
    from onnx import helper

    for node in graph.node:
        if node.op_type == "Loop":
            body = bodies[node.name]
            captured = _captured(body)
            own = len(node.input) - len(captured)
            now = dict(zip(captured, node.input[own:], strict=True))
            for inner in body.node:
                inner.input[:] = [now.get(name, name) for name in inner.input]
            del node.input[own:]
            node.attribute.append(helper.make_attribute("body", body))


def _captured(body: GraphProto) -> list[str]:
    """Names of the tensors that a body, which holds no further one, reads from outside, in the order of reading."""
    inside = {i.name for i in body.input} | {name for n in body.node for name in n.output}
    return list(dict.fromkeys(name for n in body.node for name in n.input if name and name not in inside))


def _casts(node: NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)


def _replace(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    copies = [type(n).FromString(n.SerializeToString()) for n in nodes]  # del would free what the list refers to
    del graph.node[:]
    graph.node.extend(copies)
