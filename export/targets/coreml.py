"""Core ML: the graphs of nemoport/static_graphs.py, an .mlpackage each, and beside them the programs that they were made from.

Core ML predicts on macOS only. What is proven here is the .pt2, the very ExportedProgram that was converted, run by torch in
float32; of the compressed precisions its weights are rounded already, to the grid that the package stores.

One lookahead an artifact: the checkpoint's default, or that of a profile (`--profile 1120ms/13`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.artifact import Artifact
from nemoport.export import static_export
from nemoport.export.static_export import StaticParameters, file_roles, trace, wanted_graphs, write_metadata
from nemoport.spec import ModelSpec
from nemoport.static_graphs import CONFORMER, JOINT, PRE, PRE_FIRST, PREDICT, TensorType, differences

if TYPE_CHECKING:
    from nemoport.calibration.cache import Progress
    from nemoport.export.targets import Source


@dataclass(frozen=True)
class CoreMLParameters(StaticParameters):
    """compute: precision of the arithmetic, and of the weights that are not compressed; weight_bits: 8 or 4 in the encoder's
    products and the joint, else None; block: weights of one output that share a scale at most, 0 for all of them."""

    compute: str = "float32"
    weight_bits: int | None = None
    block: int = 0


TARGET = "coreml"
PRECISIONS = {
    "fp32": CoreMLParameters("float32", 1),
    "fp16": CoreMLParameters("float32", 1, compute="float16"),
    "int8": CoreMLParameters("float32", 1, compute="float16", weight_bits=8),
    "int4": CoreMLParameters("float32", 1, compute="float16", weight_bits=4, block=32),
}
EXTRA, PACKAGES, NEEDS_CALIBRATION = "coreml", ("coremltools",), ()
PACKAGE_SUFFIX, PROGRAM_SUFFIX = ".mlpackage", ".pt2"
NAMES = {PRE_FIRST: "Preencoder_first", PRE: "Preencoder", CONFORMER: "Encoder", PREDICT: "Decoder", JOINT: "Joint"}
COMPRESSED = (CONFORMER, JOINT)  # the others hold small weights, and the table of embeddings, which is looked up
LEAST_WEIGHTS = 2048  # of a tensor that is compressed: norms, biases and depthwise kernels are not worth it


def resolved(parameters: CoreMLParameters, spec: ModelSpec) -> CoreMLParameters:
    parameters, block = static_export.resolved(parameters, spec, TARGET), parameters.block
    while block and (spec.streaming.d_model % block or spec.decoding.joint_hidden % block):
        block //= 2
    return replace(parameters, block=block)


def convert(source: Source, folder: Path, parameters: CoreMLParameters, progress: Progress) -> dict[str, str]:
    import torch

    from nemoport.export.rounding import round_weights

    def change(name: str, module: torch.nn.Module) -> None:
        if parameters.weight_bits is not None and name in COMPRESSED:
            round_weights(module, parameters.weight_bits, parameters.block, LEAST_WEIGHTS)

    traced, channels = trace(source.checkpoint, parameters, change)
    for name in list(traced):
        progress(f"{TARGET}: {NAMES[name]}")
        one = traced.pop(name)
        program = one.program.run_decompositions({})
        torch.export.save(program, folder / f"{NAMES[name]}{PROGRAM_SUFFIX}")
        package(name, program, one.graph, parameters).save(str(folder / f"{NAMES[name]}{PACKAGE_SUFFIX}"))
    files = {name: f"{NAMES[name]}{PACKAGE_SUFFIX}" for name in NAMES}
    write_metadata(folder, source.checkpoint, TARGET, parameters, channels, files)
    return file_roles(folder)


def package(name: str, program, graph, parameters: CoreMLParameters):
    """-> coremltools MLModel."""
    import coremltools as ct
    import coremltools.optimize.coreml as optimize

    model = ct.convert(
        program,
        inputs=[ct.TensorType(name=key, shape=one.shape, dtype=_numpy(one)) for key, one in graph.inputs.items()],
        outputs=[ct.TensorType(name=key, dtype=_numpy(one)) for key, one in graph.outputs.items()],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=getattr(ct.precision, parameters.compute.upper()),
        skip_model_load=True,
    )
    if parameters.weight_bits is None or name not in COMPRESSED:
        return model
    granularity = {"granularity": "per_block", "block_size": parameters.block} if parameters.block else {}
    config = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype=f"int{parameters.weight_bits}", weight_threshold=LEAST_WEIGHTS, **granularity
    )
    weights = optimize.get_weights_metadata(model, weight_threshold=LEAST_WEIGHTS)
    alone = {name: None for name, weight in weights.items() if weight.val.ndim != 2}  # positions, depthwise kernels
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config, op_name_configs=alone))


def _numpy(tensor: TensorType):
    import numpy as np

    return np.dtype(tensor.dtype).type


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    import coremltools as ct

    for name, graph in wanted_graphs(artifact, spec).items():
        path = artifact.folder / f"{NAMES[name]}{PACKAGE_SUFFIX}"
        if not path.is_dir():
            yield f"{path.name} is absent"
            continue
        described = ct.utils.load_spec(str(path)).description
        for wanted, found, side in ((graph.inputs, described.input, "input"), (graph.outputs, described.output, "output")):
            yield from differences(path.name, wanted, _types(found), side)
        yield "" if path.with_suffix(PROGRAM_SUFFIX).is_file() else f"{path.stem}{PROGRAM_SUFFIX} is absent"


def _types(features) -> dict[str, TensorType]:
    """features: of a package's description."""
    kinds = {65568: "float32", 65552: "float16", 131104: "int32"}  # coremltools' ArrayFeatureType
    arrays = {feature.name: feature.type.multiArrayType for feature in features}
    return {name: TensorType(kinds.get(array.dataType, "another type"), tuple(array.shape)) for name, array in arrays.items()}
