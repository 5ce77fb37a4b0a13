"""Weights in 4 bits by blocks of 128, rounded with error feedback on warm-cache activations; activations f32 in the graph.

The smallest variant. Made from the smoothed graph, whose weights are of similar size within a block. Needs a runtime with
opset 21 and 4-bit integers; see blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.cache import calibrate
from nemoport.calibration.gram import GramCollector
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import UsageError
from nemoport.progress import Progress, Step
from nemoport.quantize.blocks import Blocks, round_nearest, write_stored
from nemoport.quantize.error_feedback import inverse_factor, round_with_feedback
from nemoport.quantize.graph import Weights, load_structure, load_typed
from nemoport.quantize.precision import Precision, require_corpus
from nemoport.quantize.smoothing import sites
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Parameters:
    rounding: str = "feedback"  # or "nearest"
    bits: int = 4
    # 32 is 1.6 dB nearer and 28 % slower (0.6B, 560 ms chunks, kv), with 18 % more bytes; see bench/accuracy.md.
    block: int = 128
    damping: float = 0.01
    parent: str = "smoothed"
    streams: StreamParameters = field(default_factory=StreamParameters)

    def __post_init__(self):
        if self.rounding not in ("feedback", "nearest"):
            raise UsageError(
                "The weights cannot be rounded so.",
                expected="feedback or nearest",
                found=self.rounding,
                todo="correct the recipe",
            )

    def rounded(self, weight: np.ndarray, gram: np.ndarray | None) -> Blocks:
        """Rounds a weight f32 [in, out]; gram: of the activations that it is multiplied by, None for the nearest steps."""
        if gram is None:
            return round_nearest(weight, self.bits, self.block)
        return round_with_feedback(weight, inverse_factor(gram, self.damping), self.bits, self.block)


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`.

    Raises CorpusError (no audio, or too little), ArtifactError (not every layer was quantized).
    """
    grams = grams_of(parent, parameters, require_corpus(calibration), progress)
    model = load_typed(parent.encoder)  # after the calibration, whose session holds the weights too
    blocks = rounded(model, grams, parameters, progress)
    write_stored(model, {name: (stored, parameters.bits) for name, stored in blocks.items()}, parent, folder)


def rounded(model, grams: dict[str, np.ndarray], parameters: Parameters, progress: Progress) -> dict[str, Blocks]:
    """Rounds the weights of all layers: MatMul node -> its weight in blocks.

    model: the parent's encoder, an onnx.ModelProto with its weights, which stays as it is. grams: of `grams_of`; each is removed
    when it has been used, because they are larger than the weights.
    """
    weights, blocks = Weights(model), {}
    every = sites(model)
    for number, site in enumerate(every):
        progress(Step(f"weights to {parameters.bits} bits", number, len(every), "groups"))
        matrices = [weights.of(name) for name in site.matmuls]
        together = np.concatenate(matrices, 1)  # weights of the same activations share their error feedback
        stored = parameters.rounded(together, grams.pop(site.tensor) if parameters.rounding == "feedback" else None)
        ends = np.cumsum([m.shape[1] for m in matrices])
        for name, start, end in zip(site.matmuls, [0, *ends], ends, strict=False):
            zeros = None if stored.zeros is None else stored.zeros[:, start:end]
            blocks[name] = Blocks(stored.values[:, start:end], stored.scales[:, start:end], stored.size, zeros)
    progress(Step(f"weights to {parameters.bits} bits", len(every), len(every), "groups"))
    return blocks


def grams_of(
    parent: Artifact, parameters: Parameters, calibration: Corpus, progress: Progress, together: bool = False
) -> dict[str, np.ndarray]:
    """Gram matrices of the activations X at each site, collected once and kept on disk: tensor -> X^T X f32
    [channels, channels]. None where the rounding needs none. together: as of `calibrate`. Raises CorpusError."""
    if parameters.rounding != "feedback":
        return {}
    streams = CalibrationStreams.of(calibration, parent, parameters.streams)
    tensors = [site.tensor for site in sites(load_structure(parent.encoder))]
    # The state is gigabytes for a large model: written once.
    every = len(streams.plans)
    kept = calibrate(parent, streams, tensors, progress=progress, collect=GramCollector, save_every=every, together=together)
    return kept.collector.grams


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=3.0, held=2.9, disk=0.15, kept=1.6),
    needs_calibration=True,
    made_of=attrgetter("parent"),
    comparisons={"int4-weight-nearest": Parameters(rounding="nearest")},
)
