"""ONNX graphs on disk: one writer for all stages, and the files of weights beside a graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError, first_line
from nemoport.text import clipped

OPSET = 17  # of the exported graphs: the first with LayerNormalization, loaded by every runtime of the last years


def save_model(model: Any, path: Path, metadata: dict[str, str]) -> None:
    """Writes an onnx.ModelProto to `path` and its weights to one sidecar `path`.data, and replaces files that exist.

    metadata: the model's metadata_props.
    """
    import onnx

    onnx.helper.set_model_props(model, metadata)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # onnx appends to a sidecar that exists
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data.name,
        size_threshold=1024,
        convert_attribute=False,
    )
    if data.exists():  # a graph of small tensors has none
        data.chmod(0o644)  # onnx creates it for its owner only


@contextmanager
def graph_errors(path: Path) -> Iterator[None]:
    """Turns what onnx and protobuf raise within the block, which are many kinds, into an ArtifactError. path: of the graph."""
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be loaded.",
            expected="an ONNX graph with its weights beside it",
            found=f"{type(error).__name__}: {clipped(first_line(error))}",
            todo="download or build it again",
        ) from error


@dataclass(frozen=True)
class ExternalTensor:
    """A weight whose bytes are in a file beside the graph. proto: the initializer, onnx.TensorProto."""

    name: str
    file: str
    offset: int
    bytes: int
    proto: Any = field(repr=False)

    def write_place(self) -> None:
        """Writes file, offset and length into the initializer."""
        from onnx import StringStringEntryProto

        del self.proto.external_data[:]
        for key, value in (("location", self.file), ("offset", self.offset), ("length", self.bytes)):
            self.proto.external_data.append(StringStringEntryProto(key=key, value=str(value)))


def external_tensors(model: Any) -> list[ExternalTensor]:
    """Lists the weights of an onnx.ModelProto, loaded without its external data, that are in another file.

    They come in the graph's order: initializers, then constants. A length may be missing (torch's exporter writes none); it
    follows from shape and type. What the graph of a stranger names is checked by external_data.py.
    """
    from onnx import TensorProto

    found = []
    for name, tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = {e.key: e.value for e in tensor.external_data}
            found.append(ExternalTensor(name, entry["location"], int(entry.get("offset", "0")), _bytes(tensor), tensor))
    return found


def with_nested(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yields the nodes, and those of the graphs within them, which read tensors of the graphs around."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from with_nested(graph.node)


def drop_unread(graph: Any) -> None:
    """Removes the initializers of an onnx.GraphProto that no node reads, nor one of the graphs within."""
    read = {name for node in with_nested(graph.node) for name in node.input}
    kept = [initializer for initializer in graph.initializer if initializer.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, onnx.TensorProto) for every initializer and constant of an onnx.GraphProto and of the graphs within."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
                yield tensor.name or node.output[0], tensor
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(inner)


def _bytes(tensor: Any) -> int:
    """Computes the bytes of an onnx.TensorProto's data; elements of 4 bits share bytes."""
    from onnx import TensorProto, helper

    four = tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
    bits = 4 if four else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-math.prod(tensor.dims) * bits // 8)
