"""Core ML: runs the programs that its packages were converted from, in torch, because Core ML itself predicts on macOS only.

So the gates measure the .pt2 files of a variant, the very ExportedPrograms that were converted, in fp32: they prove that the
graph is NeMo's, at every step of a stream. The error of rounding to fp16, 8 or 4 bits in the packages, and whether Core ML runs
them, can only be measured on macOS: bench/macos/coreml_time.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from nemoport.apple.graphs import CONFORMER, JOINT, PRE, PRE_FIRST, PREDICT, expected_interfaces, fixed_lookahead, read_interfaces
from nemoport.apple.offline import OfflineAppleSession, offline_interfaces
from nemoport.apple.session import AppleSession
from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, first_line
from nemoport.interface import F16, F32, I32, Interface, Tensor
from nemoport.runtime import Runtime
from nemoport.session import Session
from nemoport.spec import ModelSpec

TARGET, PACKAGE = "coreml", "torch"
PACKAGE_SUFFIX, PROGRAM_SUFFIX = ".mlpackage", ".pt2"
# Of a graph that is not here, an offline model's encoder, the name with a capital: Encoder_20s.
NAMES = {PRE_FIRST: "Preencoder_first", PRE: "Preencoder", CONFORMER: "Encoder", PREDICT: "Decoder", JOINT: "Joint"}


def package_name(graph: str) -> str:
    """Returns the name of a graph's package and program, without their suffixes."""
    return NAMES.get(graph, graph.capitalize())


class Programs:
    """The opened programs of an artifact; outputs: graph name -> names of its outputs, in the module's order."""

    def __init__(self, artifact: Artifact, outputs: dict[str, list[str]], threads: int):
        """Raises ArtifactError for a program that cannot be loaded."""
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._outputs = outputs
        self._modules = {name: _load(artifact, name) for name in outputs}

    def run(self, name: str, feeds: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a graph: input name -> array in, output name -> array out."""
        import torch

        with torch.no_grad():
            values = self._modules[name](**{key: torch.from_numpy(array) for key, array in feeds.items()})
        values = values if isinstance(values, tuple | list) else (values,)
        return {key: value.numpy() for key, value in zip(self._outputs[name], values, strict=True)}


def _load(artifact: Artifact, name: str) -> Any:
    """Returns a graph's torch module. Raises ArtifactError."""
    import torch

    path = artifact.folder / f"{package_name(name)}{PROGRAM_SUFFIX}"
    try:
        return torch.export.load(path).module()
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ArtifactError(
            f"{path} cannot be loaded.",
            expected="a program as it was exported",
            found=f"torch: {first_line(error)}",
            todo="check it with `nemoport verify`, then export or download it again",
        ) from error


def open_artifact(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
    """Opens an artifact. threads: torch's, in the whole process; 0 leaves them. Raises ArtifactError."""
    graphs = read_interfaces(artifact)
    outputs = {name: list(graph.outputs) for name, graph in graphs.items()}
    programs = Programs(artifact, outputs, threads)
    if artifact.spec.streaming is None:
        return OfflineAppleSession(artifact.spec, 0, graphs, programs.run)
    return AppleSession(artifact.spec, fixed_lookahead(artifact), graphs, programs.run)


def expected(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    """Returns the interface that each graph must have, as `Runtime.expected`."""
    return {f"{package_name(name)}{PACKAGE_SUFFIX}": graph for name, graph in _graphs(artifact, spec).items()}


def _graphs(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    if spec.streaming:
        return expected_interfaces(artifact, spec)
    recipe = artifact.manifest.recipe
    return offline_interfaces(spec, recipe.windows_s, recipe.parameters["dtype"])


def found(artifact: Artifact) -> dict[str, Interface]:
    """Reads the interfaces of the packages themselves, by the names of their folders, as `Runtime.found`."""
    import coremltools as ct

    interfaces = {}
    for path in sorted(artifact.folder.glob(f"*{PACKAGE_SUFFIX}")):
        model: Any = ct.utils.load_spec(str(path))  # of protobuf, whose classes are made at run time
        described = model.description
        interfaces[path.name] = Interface(_tensors(described.input), _tensors(described.output))
    return interfaces


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Checks that each package's program is beside it. See `Runtime.problems`."""
    for name in _graphs(artifact, spec):
        path = artifact.folder / f"{package_name(name)}{PROGRAM_SUFFIX}"
        yield "" if path.is_file() else f"{path.name} is absent"


def _tensors(features: Iterable[Any]) -> dict[str, Tensor]:
    """Returns name -> tensor. features: inputs or outputs of a package's description."""
    kinds = {65568: F32, 65552: F16, 131104: I32}  # coremltools' ArrayFeatureType
    arrays = {feature.name: feature.type.multiArrayType for feature in features}
    return {name: Tensor(kinds.get(array.dataType, "another type"), tuple(array.shape)) for name, array in arrays.items()}


RUNTIME = Runtime(
    name=TARGET,
    title="Core ML",
    library="coreml",
    package=PACKAGE,
    open_session=open_artifact,
    expected=expected,
    found=found,
    problems=problems,
    extra="coreml",
    modules=("torch",),
    holds_code="its torch programs (.pt2)",
    cpu_only="run the packages in an app, or time them on macOS with bench/macos/coreml_time.py",
)
