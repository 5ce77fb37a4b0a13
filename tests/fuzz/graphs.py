"""ONNX graphs: the files of weights beside them, repacking, and what the precisions read of them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from fuzz.engine import Target
from fuzz.mutate import NAMES, NUMBERS, TEXTS, mutated_bytes
from nemoport.artifact import DECODER, ENCODER
from nemoport.graph_file import external_tensors
from nemoport.package.shards import parse_bytes, write_shards
from nemoport.quantize import graph, storage

DATA_BYTES = 64 * 48 * 4


@lru_cache
def models() -> list[bytes]:
    """A graph of two linear layers, a constant and a graph within a graph; weights in a file beside it, and within it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.arange(64 * 48, dtype=np.float32).reshape(64, 48) / 1e4, "layers.0.weight")
    small = numpy_helper.from_array(np.ones(48, np.float32), "bias")
    value = numpy_helper.from_array(np.zeros((2, 2), np.float32), "constant")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=value)], "inner", [], [helper.make_tensor_value_info("c", 1, [2, 2])]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "layers.0.weight"], ["y"], "/layers.0/MatMul"),
        helper.make_node("Add", ["y", "bias"], ["z"], "/layers.0/Add"),
        helper.make_node("If", ["flag"], ["w"], "/If", then_branch=inner, else_branch=inner),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    outputs = [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 48]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [weight, small]), opset_imports=[helper.make_opsetid("", 17)]
    )
    within = model.SerializeToString()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", f"{ENCODER}.data"), ("offset", "0"), ("length", str(DATA_BYTES))):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=text))
    return [model.SerializeToString(), within]


def mutate_model(rng: Random, seeds: Any) -> bytes:
    import onnx

    if rng.random() < 0.35:
        return mutated_bytes(rng, rng.choice(seeds), seeds)
    model = onnx.load_from_string(seeds[0] if rng.random() < 0.8 else models()[1])
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, model)
    data = model.SerializeToString()
    return mutated_bytes(rng, data) if rng.random() < 0.03 else data


def _change(rng: Random, model: Any) -> None:
    from onnx import StringStringEntryProto, helper

    tensors, nodes = model.graph.initializer, model.graph.node
    texts = [text for text in TEXTS if text != "\ud800"]
    tensor = rng.choice(tensors) if tensors else model.graph.initializer.add(name="new")
    node = rng.choice(nodes) if nodes else model.graph.node.add()
    number = rng.choice((*[n for n in NUMBERS if abs(n) < 2**63], rng.randrange(100), 48, 64))
    kind = rng.randrange(15)
    if kind < 4 and tensor.external_data:
        entry = rng.choice(tensor.external_data)
        files = (*NAMES, ENCODER, f"{ENCODER}.data", "link.data", "fifo.data", "folder.data", "/etc/passwd")
        values = {
            "location": files,
            "offset": (str(number), "-1", "x", "", "1_0", "٣", "4096"),
            "length": (str(number), str(DATA_BYTES), ""),
        }
        entry.value = rng.choice(values.get(entry.key, texts)) if rng.random() < 0.9 else rng.choice(texts)
    elif kind == 4:
        key, value = rng.choice(("location", "offset", "length", "checksum", "x")), rng.choice((f"{ENCODER}.data", str(number)))
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
        tensor.data_location = rng.choice((0, 1, 1, 1))
    elif kind == 5:
        tensor.data_type = rng.choice((*range(28), 99, -1, 2**31 - 1))
    elif kind == 6:
        tensor.dims[:] = (
            [number, *tensor.dims[rng.randrange(3) :]] if rng.random() < 0.5 else [rng.choice((0, 1, 2, 1024))] * rng.randrange(5)
        )
    elif kind == 7:
        tensor.name = rng.choice((*texts, "bias", "layers.0.weight", "x"))
    elif kind == 8:
        for _ in range(rng.choice((1, 3, 40))):
            tensors.append(tensor)
            tensors[-1].name = f"copy{len(tensors)}"
    elif kind == 9:
        names = rng.choice((node.input, node.output))
        if names and rng.random() < 0.5:
            names.pop(rng.randrange(len(names)))
        else:
            names.append(rng.choice((*texts[:8], "layers.0.weight", "bias", "y", "z")))
    elif kind == 10:
        node.op_type = rng.choice(("MatMul", "Constant", "If", "Loop", "Gather", "Reshape", "x", "", "Conv", "LSTM"))
    elif kind == 11:
        node.name = rng.choice((*texts, "/pre_encode/x", "/layers.0/MatMul"))
    elif kind == 12:
        node.attribute.append(helper.make_attribute("value", rng.choice((tensor, model.graph, 1, "x", [1.0]))))
    elif kind == 13:
        del rng.choice((tensors, nodes, model.graph.input, model.opset_import, model.graph.value_info))[:]
    else:
        for one in model.opset_import:
            one.version = number


def _lay_out(data: bytes, folder: Path) -> None:
    for name in (ENCODER, DECODER):
        (folder / name).write_bytes(data)
        (folder / f"{name}.data").write_bytes(bytes(DATA_BYTES))


def repack(data: bytes, folder: Path) -> None:
    """What is written are the graph's own bytes, each once."""
    _lay_out(data, folder)
    (folder / "link.data").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo.data")
    (folder / "folder.data").mkdir()
    (folder / "out").mkdir()
    made = write_shards(folder / ENCODER, folder / "out", 1 << 20, ENCODER)
    assert {*(folder / "out").iterdir()} == {*made, folder / "out" / ENCODER}
    written = sum(path.stat().st_blocks * 512 for path in made)
    assert written <= DATA_BYTES + len(data) + 4096 * len(made) * 2, f"{written} bytes of {DATA_BYTES}"


def read_structure(data: bytes, folder: Path) -> None:
    """What the precisions do with the graphs of their parent before they convert anything."""
    _lay_out(data, folder)
    (folder / "out").mkdir()
    parent: Any = SimpleNamespace(encoder=folder / ENCODER, decoder=folder / DECODER, folder=folder)
    structure = graph.load_structure(parent.encoder)
    external_tensors(structure)
    names = [node.name for node in graph.layer_matmuls(structure)]
    graph.float_tensors(structure, ["MatMul", "Add"])
    graph.metadata(structure)
    model = graph.load_typed(parent.encoder)
    weights = graph.Weights(model)
    for name in names:
        assert weights.of(name).ndim == 2
        weights.replace(name, 1, lambda values: values * 2)
    storage.halve_decoder(parent, folder / "out")
    with graph.scratch_copy(parent, folder / "out") as path:
        assert path.is_file()


def sizes() -> list[str]:
    return ["1.5G", "1000", "2k"]


def read_size(text: str, folder: Path) -> None:
    assert parse_bytes(text) > 0


def mutate_size(rng: Random, seeds: Any) -> str:
    text = rng.choice(
        (*TEXTS, *seeds, *map(str, NUMBERS), "inf", "nan", "1e308", "1e400", "-1", ".", "1_0", "٣", "ĸ", "ﬀ", "0x1", "1e-9")
    )
    return text + rng.choice(("", "G", "g", "K", "M", "T", " ", "GG", "\n"))


TARGETS = (
    Target("shards", lambda: models()[:1], mutate_model, repack, 40),
    Target("structure", lambda: models()[:1], mutate_model, read_structure, 15),
    Target("size", sizes, mutate_size, read_size, 40),
)
