"""Weights in 2 bits by blocks of 128: the smallest variant, made from a student that `nemoport distill` has trained.

Four levels a weight are too few for what rounding alone can make up for: without a student the weights are rounded with error
feedback, and the gates refuse the result. Needs onnxruntime; see nbits.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from nemoport.artifact import ENCODER, Artifact
from nemoport.cache_layout import cache_layout_of
from nemoport.errors import UsageError
from nemoport.graph_file import save_model
from nemoport.progress import Progress
from nemoport.quantize import int4_weight
from nemoport.quantize.blocks import Blocks
from nemoport.quantize.graph import check_quantized, layer_matmuls, load_typed, metadata
from nemoport.quantize.nbits import FAST_SIZES, OPERATOR, nbits_nodes, store_nbits
from nemoport.quantize.precision import Precision, require_corpus
from nemoport.quantize.storage import store_decoder, store_in_bytes
from nemoport.quantize.student import Student, student_blocks
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Parameters(int4_weight.Parameters):
    bits: int = 2
    block: int = 128
    parent: str = "fp32"
    rest_bits: int = 8  # of the matrices that stay floats, see storage.py

    def __post_init__(self):
        super().__post_init__()
        if self.block not in FAST_SIZES:
            raise UsageError(
                "The weights cannot be stored so.",
                expected=f"blocks of {', '.join(map(str, FAST_SIZES))}, which onnxruntime has kernels of 2 bits for",
                found=str(self.block),
                todo="correct the recipe",
            )


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`, of weights that are rounded with error feedback.

    Raises CorpusError (no audio, or too little), ArtifactError (not every layer was quantized).
    """
    grams = int4_weight.grams_of(parent, parameters, require_corpus(calibration), progress)
    model = load_typed(parent.encoder)  # after the calibration, whose session holds the weights too
    blocks = int4_weight.rounded(model, grams, parameters, progress)
    write_nbits(model, {name: (stored, parameters.bits) for name, stored in blocks.items()}, parent, folder)


def convert_student(parent: Artifact, folder: Path, student: Student, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`. Raises ArtifactError (the student of another structure)."""
    model = load_typed(parent.encoder)
    stored = student_blocks(model, student, cache_layout_of(parent.manifest.variant), parent.spec.encoder)
    high = sum(values.size for values, _, bits in student.layers.values() if bits != Parameters.bits)
    share = high / sum(values.size for values, *_ in student.layers.values())
    progress(f"{len(stored)} linear layers after {student.steps} steps, {share:.0%} of the weights in more than 2 bits")
    write_nbits(model, stored, parent, folder)


def write_nbits(model, stored: dict[str, tuple[Blocks, int]], parent: Artifact, folder: Path) -> None:
    """Writes the four files of a variant whose weights are `stored` in blocks: MatMul node -> (blocks, bits). The other
    matrices are stored in 8 bits, scales and the rest in fp16.

    model: the parent's encoder, an onnx.ModelProto with its weights, which is changed. Raises ArtifactError if not every node
    was quantized.
    """
    wanted = [node.name for node in layer_matmuls(model)]
    store_nbits(model, stored)
    check_quantized(nbits_nodes(model), wanted)
    scales = {node.input[2] for node in model.graph.node if node.op_type == OPERATOR}
    store_in_bytes(model, scales)
    del model.graph.value_info[:]
    save_model(model, folder / ENCODER, metadata(model))
    store_decoder(parent, folder, store_in_bytes)


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=3.0, held=2.9, disk=0.15, kept=1.6),
    needs_calibration=True,
    made_of=attrgetter("parent"),
    convert_student=convert_student,
)
