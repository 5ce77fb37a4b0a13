"""Runs the programs that Core ML packages were converted from, in torch: Core ML itself predicts on macOS only.

So what the gates say of a variant of Core ML is said of its .pt2 files, the very ExportedPrograms that were converted, in
fp32: that the graph is NeMo's, at every step of a stream. What rounding to fp16, 8 or 4 bits costs in the packages, and that
Core ML runs them, is for macOS to tell: bench/macos/coreml_time.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from nemoport.apple.graphs import CONFORMER, JOINT, PRE, PRE_FIRST, PREDICT, expected_interfaces, fixed_lookahead, read_interfaces
from nemoport.apple.session import AppleSession
from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.interface import F16, F32, I32, Interface, Tensor
from nemoport.runtime import Runtime
from nemoport.session import Session
from nemoport.spec import ModelSpec

TARGET, PACKAGE = "coreml", "torch"
PACKAGE_SUFFIX, PROGRAM_SUFFIX = ".mlpackage", ".pt2"
NAMES = {PRE_FIRST: "Preencoder_first", PRE: "Preencoder", CONFORMER: "Encoder", PREDICT: "Decoder", JOINT: "Joint"}


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
        import torch

        with torch.no_grad():
            values = self._modules[name](**{key: torch.from_numpy(array) for key, array in feeds.items()})
        values = values if isinstance(values, tuple | list) else (values,)
        return {key: value.numpy() for key, value in zip(self._outputs[name], values, strict=True)}


def _load(artifact: Artifact, name: str):
    import torch

    path = artifact.folder / f"{NAMES[name]}{PROGRAM_SUFFIX}"
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
    if provider != "cpu":
        raise UsageError(
            f"The programs beside the packages are not run by {provider!r}.",
            expected="cpu",
            found=provider,
            todo="run the packages in an app, or time them on macOS with bench/macos/coreml_time.py",
        )
    graphs = read_interfaces(artifact)
    outputs = {name: list(graph.outputs) for name, graph in graphs.items()}
    return AppleSession(artifact.spec, fixed_lookahead(artifact), graphs, Programs(artifact, outputs, threads).run)


def expected(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    return {f"{NAMES[name]}{PACKAGE_SUFFIX}": graph for name, graph in expected_interfaces(artifact, spec).items()}


def found(artifact: Artifact) -> dict[str, Interface]:
    """Of the packages themselves, by the name of their folder."""
    import coremltools as ct

    interfaces = {}
    for path in sorted(artifact.folder.glob(f"*{PACKAGE_SUFFIX}")):
        described = ct.utils.load_spec(str(path)).description
        interfaces[path.name] = Interface(_tensors(described.input), _tensors(described.output))
    return interfaces


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Packages without the program that they were made from."""
    for name in NAMES.values():
        path = artifact.folder / f"{name}{PROGRAM_SUFFIX}"
        yield "" if path.is_file() else f"{path.name} is absent"


def _tensors(features) -> dict[str, Tensor]:
    """features: of a package's description."""
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
)
