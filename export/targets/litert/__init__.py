"""LiteRT: the files of nemoport/runtimes/litert/graphs.py.

Graphs have fixed shapes and run one stream; those of an offline model a recording that is zero-padded to a window. fp16 halves
the weights of products and convolutions. int8 rounds those of the encoder's layers to 8 bits, with a scale for each row, and at
run time the activations to 8 bits, with a scale for each frame (ai-edge-quantizer's dynamic_wi8_afp32); subsampling, prompt and
decoder stay in floats, as in the ONNX variants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from nemoport.errors import not_installed
from nemoport.export.build import build_variant
from nemoport.export.target import Source, Target
from nemoport.files import write_json
from nemoport.progress import Progress
from nemoport.resources import Needs
from nemoport.runtimes.litert.graphs import DECODER, ENCODER, INTERFACE, described

WINDOWS_S = (5, 15, 40)  # a sentence, what published fixed-length graphs take, and more than the longest of LibriSpeech
CONVERTERS = ("litert_torch", "ai_edge_quantizer")


@dataclass(frozen=True)
class Parameters:
    """weights: f32; f16; or i8, of the encoder's layers, with activations of 8 bits too. windows_s: see `Target.windowed`."""

    weights: str
    windows_s: tuple[int, ...] = ()


FLOATS = Parameters("f32")


def convert(source: Source, folder: Path, parameters: Parameters, progress: Progress) -> dict[str, str]:
    """As `Target.convert`. Raises UsageError if the converter is not installed; CheckpointError."""
    checkpoint, spec = source.checkpoint, source.checkpoint.spec
    if absent := [package for package in CONVERTERS if find_spec(package) is None]:
        todo = "install them in an environment without NeMo, which `make setup-litert` makes in a clone"
        raise not_installed("Converting to LiteRT", ", ".join(CONVERTERS), absent, todo)
    from nemoport.export.targets.litert.convert import convert_graphs, quantize

    in_floats = replace(FLOATS, windows_s=parameters.windows_s)
    if parameters == in_floats:
        convert_graphs(checkpoint, folder, parameters.windows_s, progress)
    else:
        recipe = TARGET.recipe("fp32", in_floats, spec)
        floats = build_variant(checkpoint, source.build, recipe, lambda folder: convert(source, folder, in_floats, progress))
        quantize(floats.folder, folder, parameters.weights)
    write_json(folder / INTERFACE, described(spec, parameters.windows_s))
    return {"encoder": ENCODER, "decoder": DECODER, "interface": INTERFACE}


TARGET = Target(
    name="litert",
    precisions={"fp32": FLOATS, "fp16": Parameters("f16"), "int8": Parameters("i8")},
    convert=convert,
    windows_s=WINDOWS_S,
    needs=Needs(memory=1.0, held=1.0, disk=0.25),
    extra="litert",
    modules=("ai_edge_litert",),
)
