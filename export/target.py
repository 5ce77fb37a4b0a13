"""Target: a format that checkpoints are converted to, for a runtime; and Source: what a variant is converted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact, Recipe
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import Checkpoint
from nemoport.progress import Progress
from nemoport.resources import Needs
from nemoport.spec import ModelSpec
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Source:
    """What a variant is converted from. corpus: the calibration audio; None for precisions that need none."""

    checkpoint: Checkpoint
    build: Path
    corpus: Corpus | None
    progress: Progress

    def onnx(self, layout: str) -> Artifact:
        """The fp32 ONNX graphs in a cache layout; exports them if `build` does not hold them. Raises as `export_checkpoint`."""
        return export_checkpoint(self.checkpoint, self.build, layout, self.progress)


Convert = Callable[[Source, Path, Any, Progress], dict[str, str]]


def _unresolved(parameters: Any, spec: ModelSpec) -> Any:
    return parameters


@dataclass(frozen=True)
class Target:
    """A format that checkpoints are converted to. Its variants are named NAME-PRECISION; the runtime of the same name runs them.

    precisions: name -> parameters, a frozen dataclass, which together with the target's name are the recipe.
    convert(source, folder, parameters, progress): fills the empty `folder` and returns role -> path within it, of every file.
    Raises UsageError for a checkpoint that the target cannot be made of, naming those that it can.
    extra: of pyproject.toml, which installs the packages of the converter; modules: their import names.
    resolve(parameters, spec): the parameters completed with what depends on the checkpoint, such as the one lookahead of graphs
    of fixed shapes; the artifact is run and validated at a parameter `lookahead`. Raises UsageError.
    calibrated: names of the precisions that need calibration audio. needs: memory and disk that `convert` takes at the least,
    beside the ONNX graphs that it is made from.
    """

    name: str
    precisions: Mapping[str, Any]
    convert: Convert
    extra: str = "export"
    modules: tuple[str, ...] = ()
    resolve: Callable[[Any, ModelSpec], Any] = _unresolved
    calibrated: frozenset[str] = frozenset()
    needs: Needs = Needs()

    def recipe(self, precision: str, parameters: Any, spec: ModelSpec) -> Recipe:
        """The recipe of a precision. parameters: resolved. A recipe's digest identifies builds, so that its form must not
        change."""
        return Recipe(f"{self.name}-{precision}", None, {"target": self.name, **asdict(parameters)})
