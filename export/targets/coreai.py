"""Core AI: the graphs of mlboydaisuke/Nemotron-3.5-ASR-Streaming-CoreAI (nemoport/apple/graphs.py), an .aimodel each, in
fp32 or, of the encoder, fp16.

One lookahead an artifact: the checkpoint's default, or that of a profile (`--profile 1120ms/13`).
"""

from __future__ import annotations

from pathlib import Path

from nemoport.export.apple.steady import steady_asset, steady_functions
from nemoport.export.apple.trace import NO_STREAMING_CTC, AppleParameters, Traced, file_roles, resolved, trace, write_metadata
from nemoport.export.target import Source, Target
from nemoport.progress import Progress, step
from nemoport.resources import Needs
from nemoport.runtimes.coreai import SUFFIX
from nemoport.runtimes.coreai import TARGET as NAME
from nemoport.spec import ModelSpec

HALVES = 2  # a device refuses to load 24 layers in one graph, by the model card of mlboydaisuke/Nemotron-3.5-ASR-Streaming-CoreAI


def resolve(parameters: AppleParameters, spec: ModelSpec) -> AppleParameters:
    """As `Target.resolve`."""
    return resolved(parameters, spec, NAME)


def convert(source: Source, folder: Path, parameters: AppleParameters, progress: Progress) -> dict[str, str]:
    """As `Target.convert`. Raises CheckpointError."""
    traced, channels = trace(source.checkpoint, parameters)
    files = {name: f"{name}{SUFFIX}" for name in traced}
    for name, file in files.items():
        with step(f"{NAME}: {name}", progress):
            save(traced.pop(name), folder / file)
    write_metadata(folder, source.checkpoint, NAME, parameters, channels, files)
    return file_roles(folder)


def save(traced: Traced, path: Path) -> None:
    """Converts a traced module and writes it to `path`, a folder with the suffix .aimodel."""
    from coreai_torch import TorchConverter, get_decomp_table

    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)  # DEBUG writes the paths of this machine into it
    converter.add_exported_program(
        traced.program.run_decompositions(get_decomp_table()),
        input_names=list(traced.graph.inputs),
        output_names=list(traced.graph.outputs),
    )
    with steady_functions(path.name):
        program = converter.to_coreai()
    program.save_asset(path.resolve()).update_metadata(_dateless)
    steady_asset(path)


def _dateless(metadata) -> None:
    """Removes the date, so that the same checkpoint gives the same bytes on any day."""
    metadata.creation_date = 0.0


PRECISIONS = {"fp32": AppleParameters("float32", HALVES), "fp16": AppleParameters("float16", HALVES)}
TARGET = Target(
    name=NAME,
    precisions=PRECISIONS,
    convert=convert,
    streaming_only=dict.fromkeys(PRECISIONS, "its encoder is cut in halves for devices, which is made for chunks only"),
    no_streaming_ctc=NO_STREAMING_CTC,
    needs=Needs(memory=2.7, held=1.0, disk=0.5),
    resolve=resolve,
    extra="coreai",
    modules=("coreai", "coreai_torch"),
)
