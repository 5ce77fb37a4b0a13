"""Mends what the fp16 converter leaves behind: order, and casts there and back between nodes kept f32."""

from __future__ import annotations

from onnx import GraphProto, TensorProto


def drop_round_trips(graph: GraphProto) -> None:
    """f32 -> f16 -> f32 becomes nothing.

    The converter casts to f16 behind every node kept f32 and back before the next: a value too large for f16, for which
    the nodes were kept, would still become infinite on the way. It also makes one cast per reader under one name,
    which is not a valid graph.
    """
    to_half = {n.output[0]: n.input[0] for n in graph.node if _casts(n, TensorProto.FLOAT16)}
    to_float = {n.output[0]: n.input[0] for n in graph.node if _casts(n, TensorProto.FLOAT)}
    outputs = {o.name for o in graph.output}
    direct = {out: to_half[half] for out, half in to_float.items() if half in to_half and out not in outputs}
    nodes, made = [], set()
    for node in graph.node:
        if node.output[0] in direct or (node.op_type == "Cast" and node.output[0] in made):
            continue
        made.update(node.output)
        node.input[:] = [direct.get(name, name) for name in node.input]
        nodes.append(node)
    read = {name for node in nodes for name in node.input} | outputs
    kept = [n for n in nodes if not (_casts(n, TensorProto.FLOAT16) and n.output[0] not in read)]
    _replace(graph, kept)


def sort_nodes(graph: GraphProto) -> None:
    """Puts every node behind those it reads from; the converter appends its casts at the end."""
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
            raise ValueError(f"the graph has a cycle, or reads what nothing yields, near {later[0].name}")
        waiting = later
    _replace(graph, ordered)


def _casts(node, to: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)


def _replace(graph: GraphProto, nodes: list) -> None:
    nodes = [type(n).FromString(n.SerializeToString()) for n in nodes]  # del would free what the list refers to
    del graph.node[:]
    graph.node.extend(nodes)
