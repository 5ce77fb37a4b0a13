"""OpenVINO IR: front end, encoder, decoder and joint as .xml and .bin, with the names of FluidInference's OpenVINO package of
Nemotron 3.5, beside vocabulary and metadata. An offline model has the same graphs, without caches: its encoder takes any length.

The properties to compile the graphs with are in metadata.json and, where OpenVINO reads them from there, in the graph itself:
the defaults of a consumer are then what the gates ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemoport.artifact import Recipe
from nemoport.cache_layout import KV, NEMO
from nemoport.export.config import runtime_config
from nemoport.export.target import NO_CACHES, Source, Target
from nemoport.progress import Progress, step
from nemoport.resources import Needs
from nemoport.runtimes.openvino.graphs import ENCODER, METADATA, PREPROCESSOR, STATEFUL, VOCABULARY, graphs_of
from nemoport.runtimes.openvino.metadata import GROUP, metadata, runtime_properties, write_sidecars
from nemoport.spec import ModelSpec


@dataclass(frozen=True)
class Parameters:
    """Parameters of OpenVINO graphs.

    layout: the cache layout of the ONNX graphs, or STATEFUL; weights: of the encoder's layers, fp32, fp16 or int8; the rest is in
    fp16 where they are not fp32; group: number of channels of an activation that are rounded to 8 bits together while the graph
    runs, on processors that can; 0 rounds none.
    """

    layout: str = NEMO
    weights: str = "fp32"
    group: int = 0


class OpenVinoTarget(Target):
    """The target whose recipes name the cache layout `contract`, as digests of earlier builds have it."""

    def recipe(self, precision: str, parameters: Parameters, spec: ModelSpec) -> Recipe:
        values = {"contract": parameters.layout, "weights": parameters.weights, "group": parameters.group}
        return Recipe(f"{self.name}-{precision}", None, {"target": self.name, **values})


def convert(source: Source, folder: Path, parameters: Parameters, progress: Progress) -> dict[str, str]:
    """As `Target.convert`. Raises CheckpointError, ArtifactError."""
    import openvino

    from nemoport.export.targets.openvino.compress import compress
    from nemoport.export.targets.openvino.convert import converted
    from nemoport.export.targets.openvino.stateful import stateful
    from nemoport.export.targets.openvino.telemetry import no_telemetry

    checkpoint = source.checkpoint
    onnx = source.onnx(KV if parameters.layout == STATEFUL else parameters.layout)
    with no_telemetry():
        models = converted(onnx)
        if parameters.weights == "int8":
            with step("openvino: encoder weights to 8 bits", progress):
                models[ENCODER] = compress(models[ENCODER], onnx.encoder)
    if parameters.layout == STATEFUL:
        models[ENCODER] = stateful(models[ENCODER], checkpoint.spec.require_streaming())
    models[ENCODER].set_rt_info(str(parameters.group), ["runtime_options", GROUP])
    for name, model in models.items():
        # The front end keeps its 0.8 MB in fp32: half precision of filterbank and waves would change every frame.
        half = parameters.weights != "fp32" and name != PREPROCESSOR
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=half)
    properties = runtime_properties(parameters.group)
    values = metadata(runtime_config(checkpoint), checkpoint.tokens, parameters.layout, parameters.weights, properties)
    write_sidecars(folder, checkpoint.tokens, values)
    return roles(checkpoint.spec)


def roles(spec: ModelSpec) -> dict[str, str]:
    """Role -> file name of an artifact's files."""
    graphs = {name.removeprefix("nemotron_"): name for name in graphs_of(spec)}
    files = {role: f"{name}.xml" for role, name in graphs.items()}
    files |= {f"{role}_data": f"{name}.bin" for role, name in graphs.items()}
    return files | {"vocabulary": VOCABULARY, "metadata": METADATA}


PRECISIONS = {
    "fp32": Parameters(),
    "fp16": Parameters(weights="fp16"),
    "int8": Parameters(weights="int8"),
    "kv-fp32": Parameters(KV),
    "kv-int8": Parameters(KV, "int8"),
    "kv-int8-dynamic": Parameters(KV, "int8", 128),
    "stateful-fp32": Parameters(STATEFUL),
    "stateful-int8": Parameters(STATEFUL, "int8"),
}
TARGET = OpenVinoTarget(
    name="openvino",
    precisions=PRECISIONS,
    convert=convert,
    streaming_only={name: NO_CACHES for name, one in PRECISIONS.items() if one.layout != NEMO},
    needs=Needs(memory=2.3, disk=0.25),
    extra="openvino",
    modules=("openvino", "nncf"),
)
