"""Weights in 8 bits by blocks, activations f32 in the graph: no calibration, and the nearest to fp32 of the INT8 variants.

onnxruntime rounds the activations too, row by row and block by block, so that one loud frame or channel costs the others
no resolution. Needs a runtime with opset 21; see blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.progress import Progress
from nemoport.quantize.blocks import round_nearest, write_stored
from nemoport.quantize.graph import Weights, layer_matmuls, load_typed
from nemoport.quantize.precision import Precision
from nemoport.quantize.synthetic_rows import smooth_without_audio
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus

BITS = 8


@dataclass(frozen=True)
class Parameters:
    block: int = 128
    alphas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`. Raises ArtifactError if not every layer was quantized."""
    model = load_typed(parent.encoder)
    matmuls = [node.name for node in layer_matmuls(model)]
    progress(f"int8-weight: {len(matmuls)} MatMuls")
    smooth_without_audio(model, parameters.alphas)
    weights = Weights(model)
    stored = {name: (round_nearest(weights.of(name), BITS, parameters.block), BITS) for name in matmuls}
    write_stored(model, stored, parent, folder)


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=2.0, held=2.0, disk=0.27),
    needs_calibration=False,
)
