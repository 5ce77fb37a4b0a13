"""Repacking of a graph's weights into several files below a limit: a browser cannot load one of 2 GB or more.

Every tensor keeps its bytes, none is split, and their order stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from nemoport.errors import ArtifactError, UsageError
from nemoport.external_data import check_external_data
from nemoport.files import new_folder
from nemoport.graph_file import ExternalTensor, external_tensors, graph_errors
from nemoport.progress import silent
from nemoport.resources import Needs, check_free

ALIGNED_BYTES = 4096  # so that a runtime can map a tensor instead of reading it
_BLOCK_BYTES = 1 << 24
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def parse_bytes(text: str) -> int:
    """Reads a size in bytes, with or without a decimal unit: "1.5G" -> 1500000000. Raises UsageError."""
    number, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1:].upper() in _UNITS else (text, 1)
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):  # 1e999 is infinite
        size = 0
    if size <= 0:
        raise UsageError("That is no size.", expected="bytes, or a number with K, M or G, such as 1.5G", found=text)
    return size


def shard(graph: Path, folder: Path, limit_bytes: int, name: str | None = None) -> list[Path]:
    """Writes `graph` with its external weights into the new `folder`: NAME, NAME.data.000, NAME.data.001, ...

    name: of the new graph, by default the old one's. Returns the shards. Raises UsageError if a tensor is larger than
    the limit, ArtifactError if weights are missing, OutputError if `folder` exists or surely too little room is left.
    """
    with new_folder(folder) as made:
        shards = write_shards(graph, made, limit_bytes, name or graph.name)
    return [folder / path.name for path in shards]


def write_shards(
    graph: Path, folder: Path, limit_bytes: int, name: str, shard_name: Callable[[int], str] | None = None
) -> list[Path]:
    """Writes the same files as `shard`, into a folder that exists. shard_name(i): of each shard, by default NAME.data.00i."""
    import onnx

    check_external_data(graph)
    with graph_errors(graph):
        model = onnx.load(graph, load_external_data=False)
        tensors = external_tensors(model)
    if not tensors:
        raise ArtifactError(
            f"{graph} has nothing to shard.", expected="weights in a .data file", found="all of them in the graph"
        )
    large = [t for t in tensors if t.bytes > limit_bytes]
    if large:
        raise UsageError(
            "A tensor is larger than a shard.",
            expected=f"at most {limit_bytes} bytes",
            found=f"{large[0].name}: {large[0].bytes} bytes",
            todo=f"allow shards of {max(t.bytes for t in large)} bytes or more",
        )
    sources = {(t.file, t.offset, t.bytes): t for t in tensors}  # a place that weights share is copied once
    places = _places([*sources.values()], limit_bytes)
    check_free("shard", sum(size for _, _, size in sources), Needs(memory=0.0, disk=1.0), folder, silent)
    named = shard_name or (lambda i: f"{name}.data.{i:03d}")
    paths = [folder / named(i) for i in range(places[-1][0] + 1)]
    for path in paths:
        path.touch()
    moved = {}
    for (source, tensor), (index, offset) in zip(sources.items(), places, strict=True):
        new = replace(tensor, file=paths[index].name, offset=offset)
        if _copy(graph.parent / tensor.file, tensor, paths[index], new) != _sha256(paths[index], new):
            raise ArtifactError(f"{paths[index]} was not written as it should be.", found=tensor.name, todo="check the disk")
        moved[source] = new
    for tensor in tensors:
        replace(moved[tensor.file, tensor.offset, tensor.bytes], proto=tensor.proto).write_place()
    onnx.save(model, folder / name)
    return paths


def _places(tensors: list[ExternalTensor], limit_bytes: int) -> list[tuple[int, int]]:
    """Returns (index of the shard, offset in bytes) of each tensor, in order."""
    places, index, end = [], 0, 0
    for tensor in tensors:
        start = -(-end // ALIGNED_BYTES) * ALIGNED_BYTES
        if start + tensor.bytes > limit_bytes:
            index, start = index + 1, 0
        places.append((index, start))
        end = start + tensor.bytes
    return places


def _copy(source: Path, old: ExternalTensor, target: Path, new: ExternalTensor) -> str:
    """Copies a tensor's bytes from its old place to its new one. Returns the sha256 of what was read."""
    digest = hashlib.sha256()
    with target.open("r+b") as writer:
        writer.seek(new.offset)
        for block in _blocks(source, old):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def _sha256(path: Path, tensor: ExternalTensor) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path, tensor):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path, tensor: ExternalTensor) -> Iterator[bytes]:
    """Reads a tensor's bytes from its place in the file."""
    with path.open("rb") as reader:
        reader.seek(tensor.offset)
        left = tensor.bytes
        while block := reader.read(min(left, _BLOCK_BYTES)):
            yield block
            left -= len(block)
