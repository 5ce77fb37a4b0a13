"""Runs the programs that Core ML packages were converted from, in torch: Core ML itself predicts on macOS only.

So what the gates say of a variant of Core ML is said of its .pt2 files, the very ExportedPrograms that were converted, in
fp32: that the graph is NeMo's, at every step of a stream. What rounding to fp16, 8 or 4 bits costs in the packages, and that
Core ML runs them, is for macOS to tell: bench/macos/coreml_time.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.static_export import graphs_of
from nemoport.export.targets.coreml import NAMES, PROGRAM_SUFFIX
from nemoport.validate.sessions.static import StaticSession

PACKAGE = "torch"


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
            found=f"torch: {(str(error).splitlines() or [type(error).__name__])[0]}",
            todo="check it with `nemoport verify`, then export or download it again",
        ) from error


def open_artifact(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> StaticSession:
    if provider != "cpu":
        raise UsageError(
            f"The programs beside the packages are not run by {provider!r}.",
            expected="cpu",
            found=provider,
            todo="run the packages in an app, or time them on macOS with bench/macos/coreml_time.py",
        )
    graphs, (lookahead,) = graphs_of(artifact), artifact.lookaheads
    outputs = {name: list(graph.outputs) for name, graph in graphs.items()}
    return StaticSession(artifact.spec, lookahead, graphs, Programs(artifact, outputs, threads).run)
