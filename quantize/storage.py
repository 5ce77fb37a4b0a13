"""How the weights that stay floats are stored: in half precision, or in 8 bits by rows. The arithmetic stays f32 in either case:
onnxruntime makes floats of them once, when it loads the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import DECODER, Artifact
from nemoport.external_data import check_external_data
from nemoport.graph_file import graph_errors, save_model
from nemoport.quantize.graph import metadata, values_of

SMALL_WEIGHT = 1024  # elements; biases and the like are not worth a node
SHORTEST_ROW = 64  # in 8 bits: a scale of a shorter row takes bytes that the row saves; kernels of convolutions are shorter


def halve(model: Any, kept: Collection[str] = ()) -> None:
    """Changes an onnx.ModelProto: its weights in fp16 and a Cast behind each, but for small ones, those of the names `kept` and
    those that half precision cannot hold."""
    from onnx import TensorProto, helper, numpy_helper

    initializers, casts = [], []
    for initializer in model.graph.initializer:
        values = np.zeros(0) if initializer.name in kept else values_of(initializer)
        if values.dtype != np.float32 or values.size < SMALL_WEIGHT or np.abs(values).max() > np.finfo(np.float16).max:
            initializers.append(initializer)
            continue
        half = f"{initializer.name}.half"
        initializers.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [initializer.name], f"{initializer.name}/Cast", to=TensorProto.FLOAT))
    _replace(model, initializers, casts)


def store_in_bytes(model: Any, halved: Collection[str] = ()) -> None:
    """Changes an onnx.ModelProto: its matrices in 8 bits with a scale for each row or column, whichever is nearer, and a Cast and
    a Mul behind each. Other weights, and those of the names `halved`, become fp16, see `halve`."""
    from onnx import TensorProto, helper, numpy_helper

    initializers, nodes, scale_names = [], [], []
    for initializer in model.graph.initializer:
        name, values = initializer.name, values_of(initializer)
        matrix = (
            values.ndim >= 2
            and values.shape[-1] >= SHORTEST_ROW
            and values.size >= SMALL_WEIGHT
            and bool(np.isfinite(values).all())
        )
        if name in halved or values.dtype != np.float32 or not matrix:
            initializers.append(initializer)
            continue
        integers, scales = _bytes_of(values)
        cast, scale = f"{name}.int8.cast", f"{name}.int8.scale"
        initializers += [numpy_helper.from_array(integers, f"{name}.int8"), numpy_helper.from_array(scales, scale)]
        scale_names.append(scale)
        nodes.append(helper.make_node("Cast", [f"{name}.int8"], [cast], f"{name}/Cast", to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [cast, scale], [name], f"{name}/Mul"))
    _replace(model, initializers, nodes)
    halve(model, scale_names)


def _bytes_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """i8, and f32 scales that go with them: [..., n, 1] or [..., 1, m] for values f32 [..., n, m]."""
    found = []
    for axis in (-1, -2):
        largest = np.abs(values).max(axis, keepdims=True)
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        integers = np.round(values / scales).astype(np.int8)
        found.append((float(np.square(integers * scales - values).sum(dtype=np.float64)), integers, scales))
    _, integers, scales = min(found, key=lambda one: one[0])
    return integers, scales


def _replace(model: Any, initializers: list, before: list) -> None:
    """Gives an onnx.ModelProto these initializers, and these nodes before its own."""
    nodes = [*before, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(initializers)
    model.graph.node.extend(nodes)


def halve_decoder(parent: Artifact, folder: Path) -> None:
    """Writes the decoder with its weights in fp16, see `store_decoder`."""
    store_decoder(parent, folder, halve)


def store_decoder(parent: Artifact, folder: Path, store: Callable[[Any], None]) -> None:
    """Writes the decoder, its weights stored by `store`, and multiplied as floats: it is 2 % of the published model, its errors
    feed back from token to token, and the LSTM's integer form is no standard ONNX."""
    import onnx

    check_external_data(parent.decoder)
    with graph_errors(parent.decoder):
        model = onnx.load(parent.decoder)
    store(model)
    save_model(model, folder / DECODER, metadata(model))
