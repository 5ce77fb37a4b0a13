"""What a target is: a format that checkpoints are converted to, for a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact, Recipe
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import Checkpoint
from nemoport.progress import Progress
from nemoport.spec import ModelSpec
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Source:
    """What a variant is converted from. corpus: calibration audio, of the precisions that need it."""

    checkpoint: Checkpoint
    build: Path
    corpus: Corpus | None

    def onnx(self, layout: str) -> Artifact:
        """The fp32 ONNX graphs in a cache layout, exported where they are not there yet."""
        return export_checkpoint(self.checkpoint, self.build, layout)


Convert = Callable[[Source, Path, Any, Progress], dict[str, str]]


def _unresolved(parameters: Any, spec: ModelSpec) -> Any:
    return parameters


@dataclass(frozen=True)
class Target:
    """A format that checkpoints are converted to. Its variants are named NAME-PRECISION, and run in the runtime of its name.

    precisions: name -> parameters, a frozen dataclass, which with the target are the recipe. extra: of pyproject.toml, which
    installs what converting needs; modules: what that is when imported. convert(source, folder, parameters, progress): fills
    the empty `folder` and returns role -> path within it, of every file. Raises UsageError for a checkpoint that it cannot
    serve, with what it can. resolve(parameters, spec): with what the checkpoint decides, such as the one lookahead of graphs
    with fixed shapes; a parameter `lookahead` is what the artifact is then held to and run at. Raises UsageError. calibrated:
    the precisions that need calibration audio."""

    name: str
    precisions: Mapping[str, Any]
    convert: Convert
    extra: str = "export"
    modules: tuple[str, ...] = ()
    resolve: Callable[[Any, ModelSpec], Any] = _unresolved
    calibrated: frozenset[str] = frozenset()

    def recipe(self, precision: str, parameters: Any, spec: ModelSpec) -> Recipe:
        """parameters: resolved ones. The digest of a recipe names the build, so that its form must not change."""
        return Recipe(f"{self.name}-{precision}", None, {"target": self.name, **asdict(parameters)})
