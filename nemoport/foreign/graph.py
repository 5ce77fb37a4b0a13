"""A stranger's ONNX graph, read without its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.external_data import check_external_data, external_places
from nemoport.graph_file import graph_errors
from nemoport.interface import Interface, Tensor
from nemoport.text import clipped

MOST_BYTES = 2**31 - 1  # of protobuf's one message
OTHER = "other"  # type of a value that is no tensor, or of none that numpy has


@dataclass(frozen=True)
class Graph:
    """An ONNX graph. name: its path in the folder; interface: inputs without those that have a default, and outputs, of rank ()
    where none is stated; opsets: by domain, "" is ONNX's own; metadata: its metadata_props; damage: what is wrong with the
    weights beside it, "" where they are whole; proto: onnx.ModelProto without the weights beside it."""

    name: str
    path: Path
    interface: Interface
    opsets: Mapping[str, int]
    metadata: Mapping[str, str]
    damage: str
    proto: Any = field(repr=False, compare=False)

    @cached_property
    def operators(self) -> Counter[tuple[str, str]]:
        """How many nodes there are of each (domain, operator), those of inner graphs included."""
        return Counter((node.domain, node.op_type) for node in nodes_of(self.proto.graph))

    @cached_property
    def initializers(self) -> dict[str, Any]:
        """onnx.TensorProto by name, of the outer graph."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @cached_property
    def makers(self) -> dict[str, Any]:
        """The node, onnx.NodeProto, that computes each tensor of the outer graph."""
        return {name: node for node in self.proto.graph.node for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[Any]]:
        """The nodes of the outer graph that read each tensor."""
        found: dict[str, list[Any]] = {}
        for node in self.proto.graph.node:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found


def read_graph(name: str, path: Path) -> Graph:
    """Reads a graph; its weights are only looked for. Raises ArtifactError for what is no ONNX graph, and for weights that are
    stored where none can be."""
    size = path.stat().st_size
    if not 0 < size <= MOST_BYTES:
        raise ArtifactError(f"{path} is no ONNX graph.", expected="at most 2 GB, the weights beside it", found=f"{size} bytes")
    import onnx

    external_places(path)  # walks all of the bytes, within bounds, before a library does
    with graph_errors(path):
        model = onnx.load(path, load_external_data=False)
        if not model.graph.output or not model.graph.node:
            raise ArtifactError(f"{path} is no ONNX graph.", expected="nodes and outputs", found="none", todo="download it again")
        defaults = {tensor.name for tensor in model.graph.initializer}
        inputs = _tensors(value for value in model.graph.input if value.name not in defaults)
        return Graph(
            name,
            path,
            Interface(inputs, _tensors(model.graph.output)),
            {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import},
            {entry.key: entry.value for entry in model.metadata_props},
            _damage(path),
            model,
        )


def nodes_of(graph: Any) -> Iterable[Any]:
    """Yields every node of an onnx.GraphProto and of the graphs within."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from nodes_of(inner)


def _damage(path: Path) -> str:
    try:
        check_external_data(path)
    except ArtifactError as error:
        return error.found
    return ""


def _tensors(values: Iterable[Any]) -> dict[str, Tensor]:
    return {clipped(value.name): _tensor(value.type) for value in values}


def _tensor(kind: Any) -> Tensor:
    from onnx import helper

    if not kind.HasField("tensor_type"):
        return Tensor(OTHER, ())
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)).name
    except KeyError:
        dtype = OTHER
    dims = kind.tensor_type.shape.dim
    return Tensor(dtype, tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims))
