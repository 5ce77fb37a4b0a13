"""Half precision: weights and matrix products in fp16; inputs, outputs, caches and everything else f32, as in fp32.

Only MatMul, Conv and LSTM are converted, but not within the blocks of an offline encoder's attention, which hold no
weights. Norms, softmax, residual sums, masks and length arithmetic stay as they are,
which costs no weights, keeps sums over 24 layers from overflowing, and is nearer to fp32: 58.6 dB against 53.5 with
every operator in fp16 (reference checkpoint, encoder frames, half arithmetic by onnx's reference evaluator). Both emit
the same tokens on onnxruntime's CPU provider, which folds most casts and computes in f32.

The converter is onnxruntime.transformers.float16, because onnxconverter-common 1.16 makes an invalid graph of our
encoder (it leaves Cast(to=float) in a half graph) and clamps finite weights at 1e4. The library too would clamp weights,
without a report. So they are rounded here before it is called, which leaves it nothing to clamp, and weights that do not
fit are kept f32 and reported in the graph's metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import ArtifactError
from nemoport.graph_file import save_model
from nemoport.progress import Progress
from nemoport.quantize.casts import attach_loop_bodies, detach_loop_bodies, drop_round_trips, sort_nodes
from nemoport.quantize.graph import load_typed, metadata
from nemoport.quantize.overflow import FP16_MAX, scan_activations, unsafe_nodes
from nemoport.quantize.precision import Precision, require_corpus
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus

REPORT = "nemoport.fp16"  # key in metadata_props
HALF_OPS = ("MatMul", "Conv", "LSTM")


@dataclass(frozen=True)
class Parameters:
    ops: tuple[str, ...] = HALF_OPS
    # A product whose factors or result came within this factor of fp16's largest value on calibration audio stays f32.
    headroom: float = 4.0
    # A tensor whose rounding error, relative to its norm, is above this stays f32: too much of it lies below fp16's
    # normal range. Rounding alone costs 2e-4, at most 2**-11.
    weight_error: float = 2.0**-10
    min_share: float = 0.8  # of the weights' elements that must be fp16 in the end


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Scans the activations on warm streams and writes the four files of the variant into `folder`.

    Raises CorpusError (no audio, or too little), ArtifactError (too little of the weights would become fp16).
    """
    streams = CalibrationStreams.of(require_corpus(calibration), parent, StreamParameters())
    scan = scan_activations(parent, streams, parameters.ops, progress)
    halves = total = 0
    for name, magnitudes in ((ENCODER, scan.encoder), (DECODER, scan.decoder)):
        report = convert_graph(parent.folder / name, folder / name, magnitudes, parameters)
        halves, total = halves + report["fp16_elements"], total + report["elements"]
    if halves < parameters.min_share * total:
        raise ArtifactError(
            "Too little of this checkpoint fits into fp16.",
            expected=f"{parameters.min_share:.0%} of its weights",
            found=f"{halves / total:.1%}; {REPORT} in the graphs' metadata_props names the rest",
            todo="use fp32 or an INT8 variant",
        )


def convert_graph(source: Path, target: Path, magnitudes: dict[str, float], parameters: Parameters) -> dict[str, Any]:
    """Converts one graph and returns the report that it writes into the metadata. magnitudes: the largest of each f32
    tensor, by name."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = load_typed(source)
    props = metadata(model)
    bodies = detach_loop_bodies(model.graph)  # attention's blocks, which hold no weights, stay f32
    refused, flushed = round_weights(model, parameters.weight_error)
    large = set(unsafe_nodes(model, magnitudes, FP16_MAX / parameters.headroom))
    products = [n for n in model.graph.node if n.op_type in parameters.ops]
    kept = [n.name for n in products if n.name in large or refused.intersection(n.input)]
    others = {n.op_type for n in model.graph.node}.difference(parameters.ops)
    model = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, op_block_list=sorted(others), node_block_list=kept
    )
    drop_round_trips(model.graph)
    sort_nodes(model.graph)
    attach_loop_bodies(model.graph, bodies)
    del model.graph.value_info[:]  # it lists tensors that no longer exist
    types = [(i.data_type, int(np.prod(i.dims))) for i in model.graph.initializer]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    report = {
        "largest_factor": max((magnitudes.get(name, 0.0) for n in products for name in n.input), default=0.0),
        "products_kept_f32": kept,
        "weights_kept_f32": sorted(refused),
        "weights_rounded_to_zero": flushed,
        "elements": sum(n for t, n in types if t in floats),
        "fp16_elements": sum(n for t, n in types if t == onnx.TensorProto.FLOAT16),
    }
    save_model(model, target, {**props, REPORT: json.dumps(report)})
    onnx.checker.check_model(str(target))
    return report


def round_weights(model, limit: float) -> tuple[set[str], int]:
    """Rounds every f32 weight to the nearest fp16, to zero where that is nearest, leaving it stored as f32.

    Returns the names of those left alone (a value beyond fp16's range, or a relative error above `limit`) and how many
    values of the others became zero.
    """
    import onnx

    refused, flushed = set(), 0
    for initializer in model.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        weight = onnx.numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            rounded = weight.astype(np.float16).astype(np.float32)
        error = np.linalg.norm((weight - rounded).ravel().astype(np.float64))
        if not error <= limit * np.linalg.norm(weight.ravel().astype(np.float64)):  # an overflow makes it infinite
            refused.add(initializer.name)
            continue
        flushed += int(np.count_nonzero(weight)) - int(np.count_nonzero(rounded))
        initializer.CopyFrom(onnx.numpy_helper.from_array(rounded, initializer.name))
    return refused, flushed


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=2.6, held=2.6, disk=0.5),
    needs_calibration=True,
)
