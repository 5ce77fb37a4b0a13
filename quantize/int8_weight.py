"""Weights in 8 bits by blocks, activations f32 in the graph: no calibration, and the nearest to fp32 of the INT8 variants.

onnxruntime rounds the activations too, row by row and block by block, so that one loud frame or channel takes nothing
from the others. Needs a runtime that knows opset 21; see blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoport.artifact import ENCODER, Artifact
from nemoport.calibration.cache import Progress
from nemoport.quantize.blocks import Blocks, round_nearest, store
from nemoport.quantize.drawn import drawn_rows
from nemoport.quantize.graph import Weights, check_quantized, halve_decoder, layer_matmuls, load_typed, metadata
from nemoport.quantize.smoothing import sites, smooth

NEEDS_CALIBRATION = False


@dataclass(frozen=True)
class Parameters:
    bits: int = 8
    block: int = 128
    alphas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`."""
    model = load_typed(parent.encoder)
    matmuls = [node.name for node in layer_matmuls(model)]
    progress(f"int{parameters.bits}-weight: {len(matmuls)} MatMuls")
    smooth_without_audio(model, parameters.alphas)
    weights = Weights(model)
    stored: dict[str, tuple[Blocks, int]] = {}
    for name in matmuls:
        stored[name] = (round_nearest(weights.of(name), parameters.bits, parameters.block), parameters.bits)
    write_stored(model, stored, parent, folder)


def write_stored(
    model, stored: dict[str, tuple[Blocks, int]], parent: Artifact, folder: Path, report: dict[str, str] | None = None
) -> None:
    """Writes the four files of a variant whose weights are `stored` in blocks: MatMul node -> (blocks, bits).

    report: what else to write into the encoder's metadata_props.
    """
    from nemoport.graph_file import save_model

    store(model, stored)
    check_quantized(quantized_nodes(model), list(stored))
    del model.graph.value_info[:]
    save_model(model, folder / ENCODER, {**metadata(model), **(report or {})})
    halve_decoder(parent, folder)


def smooth_without_audio(model, alphas: tuple[float, ...]) -> None:
    """Smooths, in place, the tensors whose outliers the weights tell of and whose division costs nothing."""
    found = sites(model)
    rows = drawn_rows(model, found)
    known = [site for site in found if site.tensor in rows]
    largest = {tensor: np.abs(sample).max(0) for tensor, sample in rows.items()}
    for _ in smooth(model, known, largest, rows.__getitem__, alphas, mul_gain_db=0.0):
        pass


def quantized_nodes(model) -> list[str]:
    """The MatMul nodes whose weight comes from DequantizeLinear."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in dequantized]
