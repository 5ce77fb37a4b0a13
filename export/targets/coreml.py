"""Core ML: the graphs of nemoport/apple/graphs.py, an .mlpackage each, and beside them the programs that they were made from.

Core ML predicts on macOS only. The gates run the .pt2, the very ExportedProgram that was converted, by torch in float32; in the
compressed precisions its weights are rounded already, to the grid that the package stores.

One lookahead an artifact: the checkpoint's default, or that of a profile (`--profile 1120ms/13`). Of an offline model a package
for each window, by default one of 20 s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemoport.apple.graphs import CONFORMER, JOINT
from nemoport.apple.offline import PREFIX
from nemoport.export.apple.steady import steady_package, steady_program
from nemoport.export.apple.trace import NO_STREAMING_CTC, AppleParameters, file_roles, resolved, trace, write_metadata
from nemoport.export.target import Source, Target
from nemoport.interface import Interface, Tensor
from nemoport.progress import Progress, step
from nemoport.resources import Needs
from nemoport.runtimes.coreml import PACKAGE_SUFFIX, PROGRAM_SUFFIX, package_name
from nemoport.runtimes.coreml import TARGET as NAME
from nemoport.spec import ModelSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CoreMLParameters(AppleParameters):
    """Parameters of Core ML packages. compute: precision of the arithmetic, and of the weights that are not compressed;
    weight_bits: 8 or 4 in the encoder's products and the joint, else None; block: largest number of weights of one output that
    share a scale, 0 for all of them."""

    compute: str = "float32"
    weight_bits: int | None = None
    block: int = 0


# Beginnings of names; the others hold small weights, and the table of embeddings, which is gathered from.
COMPRESSED = (CONFORMER, JOINT, PREFIX)
LEAST_WEIGHTS = 2048  # of a tensor that is compressed: norms, biases and depthwise kernels are not worth it


def resolve(parameters: CoreMLParameters, spec: ModelSpec) -> CoreMLParameters:
    """As `Target.resolve`; a block that does not divide the model's sizes is halved until it does."""
    parameters, block = resolved(parameters, spec, NAME), parameters.block
    sizes = (spec.encoder.d_model, spec.decoding.joint_hidden)  # of a CTC model no joint
    while block and any(size % block for size in sizes):
        block //= 2
    return replace(parameters, block=block)


def convert(source: Source, folder: Path, parameters: CoreMLParameters, progress: Progress) -> dict[str, str]:
    """As `Target.convert`. Raises CheckpointError."""
    import torch

    from nemoport.export.apple.rounding import round_weights

    def change(name: str, module: torch.nn.Module) -> None:
        if parameters.weight_bits is not None and name.startswith(COMPRESSED):
            round_weights(module, parameters.weight_bits, parameters.block, LEAST_WEIGHTS)

    traced, channels = trace(source.checkpoint, parameters, change)
    files = {name: f"{package_name(name)}{PACKAGE_SUFFIX}" for name in traced}
    for name in list(traced):
        file = package_name(name)
        with step(f"{NAME}: {file}", progress):
            one = traced.pop(name)
            program = one.program.run_decompositions({})
            steady_program(program)
            torch.export.save(program, folder / f"{file}{PROGRAM_SUFFIX}")
            package(name, program, one.graph, parameters).save(str(folder / f"{file}{PACKAGE_SUFFIX}"))
            steady_package(folder / f"{file}{PACKAGE_SUFFIX}")
    write_metadata(folder, source.checkpoint, NAME, parameters, channels, files)
    return file_roles(folder)


def package(name: str, program: torch.export.ExportedProgram, graph: Interface, parameters: CoreMLParameters) -> Any:
    """Converts a program to a coremltools MLModel, with the weights of a graph of COMPRESSED in `weight_bits` bits."""
    import coremltools as ct
    import coremltools.optimize.coreml as optimize

    model: Any = ct.convert(
        program,
        inputs=[ct.TensorType(name=key, shape=one.shape, dtype=_numpy(one)) for key, one in graph.inputs.items()],
        outputs=[ct.TensorType(name=key, dtype=_numpy(one)) for key, one in graph.outputs.items()],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=getattr(ct.precision, parameters.compute.upper()),
        skip_model_load=True,
    )
    if parameters.weight_bits is None or not name.startswith(COMPRESSED):
        return model
    granularity = {"granularity": "per_block", "block_size": parameters.block} if parameters.block else {}
    config = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype=f"int{parameters.weight_bits}", weight_threshold=LEAST_WEIGHTS, **granularity
    )
    weights = optimize.get_weights_metadata(model, weight_threshold=LEAST_WEIGHTS)
    # Positions and depthwise kernels are left out. coremltools annotates this mapping of names to configs as one config.
    others: Any = {name: None for name, weight in weights.items() if weight.val.ndim != 2}
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config, op_name_configs=others))


def _numpy(tensor: Tensor):
    import numpy as np

    return np.dtype(tensor.dtype).type


TARGET = Target(
    name=NAME,
    precisions={
        "fp32": CoreMLParameters("float32", 1),
        "fp16": CoreMLParameters("float32", 1, compute="float16"),
        "int8": CoreMLParameters("float32", 1, compute="float16", weight_bits=8),
        "int4": CoreMLParameters("float32", 1, compute="float16", weight_bits=4, block=32),
    },
    convert=convert,
    needs=Needs(memory=2.3, held=1.0, disk=1.2),
    no_streaming_ctc=NO_STREAMING_CTC,
    windows_s=(20,),  # weights stand in each package; published ones take 15 s
    resolve=resolve,
    extra="coreml",
    modules=("coremltools",),
)
