"""ONNX graphs on disk: one writer for all stages, and the files of weights beside a graph."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError

_PLACE = re.compile(r"[0-9]{1,15}", re.ASCII)
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
    data.chmod(0o644)  # onnx creates it for its owner only


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

    They come in the graph's order: initializers, then constants. Raises ArtifactError if one names no file of the graph's
    folder, or a place that is no place of its bytes. A length may be missing (torch's exporter writes none); then it follows
    from shape and type.
    """
    from onnx import TensorProto

    found = []
    for name, tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = {e.key: e.value for e in tensor.external_data}
            if tensor.data_type not in TensorProto.DataType.values()[1:] or any(size < 0 for size in tensor.dims):
                raise _misplaced(name, "a type and a shape of ONNX", f"type {tensor.data_type}, shape {list(tensor.dims)}")
            file, size = entry.get("location", ""), _bytes(tensor)
            # A graph may come from a stranger: a path would read, and `nemoport shard` copy, a file of somewhere else.
            if file in ("", ".", "..") or any(c in "/\\:" or not c.isprintable() for c in file):
                raise _misplaced(name, "a file beside the graph, by its name", f"location {file!r}")
            if not _PLACE.fullmatch(offset := entry.get("offset", "0")):
                raise _misplaced(name, "an offset in bytes", f"offset {offset!r}")
            if entry.get("length", str(size)) != str(size):
                raise _misplaced(name, f"{size} bytes, by shape and type", f"length {entry['length']!r}")
            found.append(ExternalTensor(name, file, int(offset), size, tensor))
    return found


def _misplaced(name: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"The weight {name[:200]!r} is stored where none can be.",
        expected=expected,
        found=found[:200],
        todo="download or build the graph again",
    )


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


def check_external_data(graph: Path) -> None:
    """Raises ArtifactError naming every file of weights of an ONNX graph that is missing, a link or too short."""
    import onnx

    needed: dict[str, int] = {}
    for tensor in external_tensors(onnx.load(graph, load_external_data=False)):
        needed[tensor.file] = max(needed.get(tensor.file, 0), tensor.offset + tensor.bytes)
    wrong = []
    for name, size in needed.items():
        path = graph.parent / name
        if path.is_symlink():
            wrong.append(f"{name}: a link")
        elif not path.is_file():
            wrong.append(f"{name}: missing")
        elif path.stat().st_size < size:
            wrong.append(f"{name}: {path.stat().st_size} bytes, {size} needed")
    if wrong:
        raise ArtifactError(
            f"The weights of {graph} are not all there.",
            expected=f"{', '.join(sorted(needed))} beside it, whole",
            found="; ".join(wrong),
            todo="download or build it again, and keep the files' names",
        )
