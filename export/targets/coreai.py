"""Core AI: the graphs of card 003, an .aimodel each, in fp32 or, of the encoder, fp16. See nemoport/static_graphs.py.

One lookahead an artifact: the checkpoint's default, or that of a profile (`--profile 1120ms/13`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.artifact import Artifact
from nemoport.export import static_export
from nemoport.export.static_export import StaticParameters, Traced, file_roles, trace, wanted_graphs, write_metadata
from nemoport.spec import ModelSpec
from nemoport.static_graphs import TensorType, differences

if TYPE_CHECKING:
    from nemoport.calibration.cache import Progress
    from nemoport.export.targets import Source

TARGET = "coreai"
HALVES = 2  # whole, the loader of a device refuses 24 layers, says card 003
PRECISIONS = {"fp32": StaticParameters("float32", HALVES), "fp16": StaticParameters("float16", HALVES)}
EXTRA, PACKAGES, NEEDS_CALIBRATION = "coreai", ("coreai", "coreai_torch"), ()
SUFFIX = ".aimodel"
FUNCTION = "main"


def resolved(parameters: StaticParameters, spec: ModelSpec) -> StaticParameters:
    return static_export.resolved(parameters, spec, TARGET)


def convert(source: Source, folder: Path, parameters: StaticParameters, progress: Progress) -> dict[str, str]:
    traced, channels = trace(source.checkpoint, parameters)
    files = {name: f"{name}{SUFFIX}" for name in traced}
    for name, file in files.items():
        progress(f"{TARGET}: {name}")
        save(traced.pop(name), folder / file)
    write_metadata(folder, source.checkpoint, TARGET, parameters, channels, files)
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


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    from coreai.authoring.asset import AIModelAsset

    for name, graph in wanted_graphs(artifact, spec).items():
        path = artifact.folder / f"{name}{SUFFIX}"
        if not path.is_dir():
            yield f"{path.name} is absent"
            continue
        summary = AIModelAsset.load(path).summary(include_statistics=False)
        yield "" if summary.function_names == [FUNCTION] else f"{path.name}: functions {summary.function_names}, not {FUNCTION}"
        inputs, outputs = (described(FUNCTION) for described in (summary.function_inputs, summary.function_outputs))
        sides = ((graph.inputs, inputs, "input"), (graph.outputs, outputs, "output"))
        for wanted, found, side in sides:
            yield from differences(path.name, wanted, _types(found), side)


def _types(described: list[tuple[str, str]]) -> dict[str, TensorType]:
    """described: as the package tells it, such as ("mel", "NDArray (Float32, 1 × 56 × 128)")."""
    found = {}
    for name, text in described:
        kind, _, shape = text.removeprefix("NDArray (").rstrip(")").partition(", ")
        found[name] = TensorType(kind.lower(), tuple(int(size) for size in shape.split(" × ")))
    return found


def _dateless(metadata) -> None:
    """The same checkpoint gives the same bytes on any day."""
    metadata.creation_date = 0.0
