"""Artifacts with one thing wrong, and manifests that agree with them: each must be found by what it computes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nemoport.artifact import DECODER, ENCODER, Manifest, file_entries
from nemoport.cache_layout import NEMO
from nemoport.export.onnx_graphs import export_graphs
from nemoport.external_data import external_places
from nemoport.files import write_json
from nemoport.graph_file import save_model


class Payload:
    """Makes a folder when it is unpickled: the mark that code of a file ran."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def copy_build(build: Path, target: Path) -> Path:
    """A copy of a build folder. What folders beside the build keep under the digest of all their inputs, the runs of NeMo and
    calibrations, is not copied but made once for all copies."""
    shutil.copytree(build, target, symlinks=True)
    for name in ("oracle", "calibration"):
        if (build.parent / name).is_dir():
            (target / name).symlink_to(build.parent / name)
    return target


def seal(folder: Path) -> None:
    """Writes the hashes of the files as they are into the manifest."""
    manifest = Manifest.read(folder)
    roles = {role: entry.path for role, entry in manifest.files.items()}
    replace(manifest, files=file_entries(folder, roles)).write(folder)


def edit_graph(build: Path, name: str, edit) -> None:
    """edit: changes an onnx.ModelProto in place."""
    path = build / "fp32" / name
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    edit(model)
    save_model(model, path, metadata)
    seal(path.parent)


def edit_weight(build: Path, graph: str, wanted, edit) -> None:
    """edit: f32 array -> f32 array, for every initializer whose name `wanted` accepts."""

    def change(model):
        chosen = [i for i in model.graph.initializer if wanted(i.name)]
        assert chosen
        for initializer in chosen:
            changed = edit(numpy_helper.to_array(initializer).copy())
            initializer.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), initializer.name))

    edit_graph(build, graph, change)


def reverse_layers(model) -> None:
    """The channel caches come back in the wrong order of layers."""
    output = model.graph.output[2]
    assert output.name == "cache_last_channel_next"
    layers = output.type.tensor_type.shape.dim[1].dim_value
    order = numpy_helper.from_array(np.arange(layers)[::-1].copy(), "wrong_order")
    model.graph.initializer.append(order)
    _behind(model, output.name, [lambda raw: helper.make_node("Gather", [raw, "wrong_order"], [output.name], axis=1)])


def roll_streams(model) -> None:
    """In a batch each stream gets its neighbour's channel cache; a stream alone gets its own."""
    name = "cache_last_channel_next"
    for key, value in (("zero", [0]), ("one", [1]), ("end", [2**31 - 1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"roll_{key}"))
    _behind(
        model,
        name,
        [
            lambda raw: helper.make_node("Slice", [raw, "roll_one", "roll_end", "roll_zero"], ["roll_tail"]),
            lambda raw: helper.make_node("Slice", [raw, "roll_zero", "roll_one", "roll_zero"], ["roll_head"]),
            lambda raw: helper.make_node("Concat", ["roll_tail", "roll_head"], [name], axis=0),
        ],
    )


def _behind(model, name: str, nodes) -> None:
    for node in model.graph.node:
        node.output[:] = [f"{name}_raw" if o == name else o for o in node.output]
        node.input[:] = [f"{name}_raw" if i == name else i for i in node.input]
    model.graph.node.extend(make(f"{name}_raw") for make in nodes)


def shorter_left_context(build: Path, checkpoint, frames: int) -> None:
    """Graphs and config.json for a left context that the checkpoint does not have."""
    from nemoport.export.config import runtime_config

    spec = checkpoint.spec
    wrong = replace(spec, streaming=replace(spec.streaming, left_context_enc_frames=frames))
    wrong = replace(checkpoint, spec=wrong)
    for file in (build / "fp32").glob("*.onnx*"):
        file.unlink()
    export_graphs(wrong, build / "fp32", NEMO)
    write_json(build / "config.json", runtime_config(wrong))
    seal(build / "fp32")


def is_matrix(name: str) -> bool:
    """Whether an encoder weight is one that INT8 quantizes: all but the subsampling's, the norms', the positions'."""
    kinds = ("linear", "pointwise_conv")
    return name.startswith("layers.") and name.endswith(".weight") and name.split(".")[-2].startswith(kinds)


def shuffle_scales(weight: np.ndarray) -> np.ndarray:
    """[in, out] -> as if the per-channel int8 scales had been stored in another order."""
    scales = np.abs(weight).max(0) / 127
    return weight / scales * np.random.default_rng(0).permutation(scales)


def blank_row_from_token_0(build: Path, blank: int) -> None:
    """The first target of a stream acts as token 0 instead of blank."""

    def change(table):
        table[blank] = table[0]
        return table

    edit_weight(build, DECODER, lambda name: name == "embed.weight", change)


def only_blank(build: Path) -> None:
    def change(bias):
        bias[-1] = 1e4
        return bias

    edit_weight(build, DECODER, lambda name: name == "head.bias", change)


def nan_in_a_weight(build: Path) -> None:
    def change(weight):
        weight.flat[0] = np.nan
        return weight

    edit_weight(build, ENCODER, lambda name: name == "layers.2.norm_out.weight", change)


def overflow_in_a_weight(build: Path) -> None:
    edit_weight(build, ENCODER, lambda name: name == "layers.2.norm_out.weight", lambda weight: weight * np.float32(1e38))


def nan_in_the_lstm(decoder: Path) -> None:
    """Of a decoder with its weights beside it: onnxruntime's CPU provider computes finite scores from it. The hashes of the file
    no longer hold."""
    lstm = next(node for node in onnx.load(decoder, load_external_data=False).graph.node if node.op_type == "LSTM")
    place = next(place for place in external_places(decoder) if place.weight == lstm.input[2])
    with open(decoder.parent / place.file, "r+b") as file:
        file.seek(place.offset + place.bytes // 2)
        file.write(np.float32(np.nan).tobytes())
