"""Makes what Apple's converters write the same on every run: they name weights and functions at random, and write the entries of
mappings in the order of a hash table."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from unittest import mock

from nemoport.errors import NemoportError
from nemoport.files import sha256_file

if TYPE_CHECKING:
    import torch

MAGIC = b"ML\xefR"
STRINGS, RESOURCES, RESOURCE_OFFSETS = 0, 5, 6  # sections of MLIR's bytecode, https://mlir.llvm.org/docs/BytecodeFormat
ALIGNED, PADDING = 0x80, 0xCB
DATE = "com.github.apple.coremltools.conversion_date"
WEIGHT = re.compile(rb"resource_\d+")  # a hash of the weights with a seed of the process


@contextmanager
def steady_functions(seed: str) -> Iterator[None]:
    """Draws the names that Core AI gives to functions from `seed` while the block runs, and not from the system's randomness."""
    from coreai.authoring import func, graph_builder

    random = Random(seed)
    with ExitStack() as stack:
        for module in (func, graph_builder):
            stack.enter_context(mock.patch.object(module, "choice", random.choice))
        yield


def steady_asset(path: Path) -> None:
    """Names the weights of an .aimodel by their content, and writes its metadata in the order of the keys. Raises NemoportError
    for bytecode of another form than the pinned packages write."""
    bytecode, digest, metadata = path / "main.mlirb", path / "main.hash", path / "metadata.json"
    if digest.read_bytes() != bytes.fromhex(sha256_file(bytecode)):
        raise _unknown(digest, "the SHA-256 of the bytecode")
    name_weights(bytecode)
    digest.write_bytes(bytes.fromhex(sha256_file(bytecode)))
    metadata.write_text(json.dumps(json.loads(metadata.read_text()), indent=2, sort_keys=True) + "\n")


def name_weights(path: Path) -> None:
    """Names the weights of MLIR bytecode by their content. The table of strings, which holds the names, is behind the weights:
    they are not moved. Raises NemoportError for bytecode of another form."""
    with open(path, "r+b") as file:
        if os.fstat(file.fileno()).st_size < len(MAGIC):
            raise _unknown(path, "MLIR's bytecode")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            sections = {kind: (head, start, end) for kind, head, start, end in _sections(data, path)}
            head, start, end = sections[STRINGS]
            if head < max(first for kind, (first, _, _) in sections.items() if kind in (RESOURCES, RESOURCE_OFFSETS)):
                raise _unknown(path, "the table of strings behind the weights")
            strings = _strings(data, start)
            for index, name in _weight_names(data, sections[RESOURCES][1], sections[RESOURCE_OFFSETS][1:]).items():
                if not WEIGHT.fullmatch(strings[index]):
                    raise _unknown(path, f"the name of a weight, not {strings[index]!r}")
                strings[index] = name
            table = [_number(len(strings)), *(_number(len(one) + 1) for one in reversed(strings)), *(s + b"\0" for s in strings)]
            content = b"".join(table)
            rest = bytes([STRINGS]) + _number(len(content)) + content + data[end:]
        file.seek(head)
        file.write(rest)
        file.truncate()


def _sections(data: mmap.mmap, path: Path) -> Iterator[tuple[int, int, int, int]]:
    """Yields each section: kind, where its head begins, where its content begins and ends."""
    if data[: len(MAGIC)] != MAGIC:
        raise _unknown(path, "MLIR's bytecode")
    _, at = _read_number(data, len(MAGIC))
    at = data.find(b"\0", at) + 1  # behind the producer's name
    behind_strings = False
    while at < len(data):
        head, kind = at, data[at]
        size, at = _read_number(data, at + 1)
        if kind & ALIGNED:
            if behind_strings:
                raise _unknown(path, "no aligned section behind the table of strings")
            _, at = _read_number(data, at)
            while data[at] == PADDING:
                at += 1
        if at + size > len(data):
            raise _unknown(path, "whole sections")
        yield kind & ~ALIGNED, head, at, at + size
        behind_strings |= kind == STRINGS
        at += size


def _strings(data: mmap.mmap, at: int) -> list[bytes]:
    count, at = _read_number(data, at)
    sizes = []
    for _ in range(count):
        size, at = _read_number(data, at)
        sizes.append(size)
    found = []
    for size in reversed(sizes):
        found.append(data[at : at + size - 1])  # a zero ends it
        at += size
    return found


def _weight_names(data: mmap.mmap, at: int, offsets: tuple[int, int]) -> dict[int, bytes]:
    """Returns index in the table of strings -> name, of each weight. at: where the weights begin; offsets: the section that
    lists them: groups, of one dialect each, with the index, the size and the kind of each entry."""
    names: dict[int, bytes] = {}
    position, end = offsets
    _, position = _read_number(data, position)  # number of groups that no dialect owns
    while position < end:
        _, position = _read_number(data, position)  # dialect
        count, position = _read_number(data, position)
        for _ in range(count):
            index, position = _read_number(data, position)
            size, position = _read_number(data, position)
            position += 1  # kind
            _, blob = _read_number(data, at)  # alignment
            n_bytes, _ = _read_number(data, blob)
            content = hashlib.sha256(memoryview(data)[at + size - n_bytes : at + size])  # padding is before it
            content.update(str(len(names)).encode())  # equal weights of two shapes stay two
            names[index] = b"resource_%d" % int.from_bytes(content.digest()[:8], "big")
            at += size
    return names


def _read_number(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Returns a number, and where it ends. The zeros at the low end of its first byte count the bytes that follow."""
    if not data[at]:
        return int.from_bytes(data[at + 1 : at + 9], "little"), at + 9
    size = (data[at] & -data[at]).bit_length()
    return int.from_bytes(data[at : at + size], "little") >> size, at + size


def _number(value: int) -> bytes:
    """The inverse of `_read_number`."""
    size = max(1, -(-value.bit_length() // 7))
    return (value << size | 1 << (size - 1)).to_bytes(size, "little") if size < 9 else b"\0" + value.to_bytes(8, "little")


def steady_package(path: Path) -> None:
    """Writes the program of an .mlpackage with its mappings in the order of their keys and without the day on which it was made,
    and names the package's items by their paths."""
    import coremltools

    manifest = path / "Manifest.json"
    program = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec: Any = coremltools.utils.load_spec(str(program))
    spec.description.metadata.userDefined.pop(DATE, None)
    program.write_bytes(spec.SerializeToString(deterministic=True))
    text = manifest.read_text()
    for name, entry in json.loads(text)["itemInfoEntries"].items():
        text = text.replace(name, str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])))
    manifest.write_text(json.dumps(json.loads(text), indent=4, sort_keys=True) + "\n")


def steady_program(program: torch.export.ExportedProgram) -> None:
    """Removes where each node came from: torch notes it with addresses in memory."""
    import torch

    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("from_node", None)


def _unknown(path: Path, expected: str) -> NemoportError:
    return NemoportError(
        f"{path} is not what the converter is known to write.",
        expected=expected,
        found="something else",
        todo="install the pinned coreai-core",
    )
