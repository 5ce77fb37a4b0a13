"""Core AI: the graphs of card 003, an .aimodel each, in fp32 or, of the encoder, fp16. See nemoport/apple_graphs.py.

One lookahead an artifact: the checkpoint's default, or that of a profile (`--profile 1120ms/13`).
"""

from __future__ import annotations

from pathlib import Path

from nemoport.export.apple.trace import AppleParameters, Traced, file_roles, resolved, trace, write_metadata
from nemoport.export.target import Source, Target
from nemoport.progress import Progress
from nemoport.runtimes.coreai import SUFFIX
from nemoport.runtimes.coreai import TARGET as NAME
from nemoport.spec import ModelSpec

HALVES = 2  # whole, the loader of a device refuses 24 layers, says card 003


def resolve(parameters: AppleParameters, spec: ModelSpec) -> AppleParameters:
    return resolved(parameters, spec, NAME)


def convert(source: Source, folder: Path, parameters: AppleParameters, progress: Progress) -> dict[str, str]:
    traced, channels = trace(source.checkpoint, parameters)
    files = {name: f"{name}{SUFFIX}" for name in traced}
    for name, file in files.items():
        progress(f"{NAME}: {name}")
        save(traced.pop(name), folder / file)
    write_metadata(folder, source.checkpoint, NAME, parameters, channels, files)
    return file_roles(folder)


def save(traced: Traced, path: Path) -> None:
    """path: of the folder to be written, NAME.aimodel."""
    from coreai_torch import TorchConverter, get_decomp_table

    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)  # DEBUG writes the paths of this machine into it
    converter.add_exported_program(
        traced.program.run_decompositions(get_decomp_table()),
        input_names=list(traced.graph.inputs),
        output_names=list(traced.graph.outputs),
    )
    converter.to_coreai().save_asset(path.resolve()).update_metadata(_dateless)


def _dateless(metadata) -> None:
    """The same checkpoint gives the same bytes on any day."""
    metadata.creation_date = 0.0


TARGET = Target(
    name=NAME,
    precisions={"fp32": AppleParameters("float32", HALVES), "fp16": AppleParameters("float16", HALVES)},
    convert=convert,
    resolve=resolve,
    extra="coreai",
    modules=("coreai", "coreai_torch"),
)
