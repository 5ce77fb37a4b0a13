"""Checkpoint -> a variant for another runtime than onnxruntime, in the same build folder: openvino-fp32, litert-int8, ...

A target is a module here, with its runtime's name, that imports no heavy package at module level. It has

- PRECISIONS: precision -> its parameters, a frozen dataclass, which with the target is the recipe;
- EXTRA: the extra of pyproject.toml that installs what it needs, and PACKAGES, what that is called when imported;
- NEEDS_CALIBRATION: those of PRECISIONS that hear audio;
- `convert(source: Source, folder: Path, parameters, progress: Progress) -> dict[str, str]`, which fills the empty `folder`
  and returns role -> path within it, of every file. Raises UsageError for a checkpoint that it cannot serve, with what it can;
- where the checkpoint decides a parameter, such as the one lookahead of graphs with fixed shapes, `resolved(parameters, spec:
  ModelSpec)`, the parameters with it, for the recipe. Raises UsageError for a checkpoint that it cannot serve. A parameter
  `lookahead` is what the artifact is then held to and run at;
- `problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]`: what a consumer of these graphs would trip over, names,
  types, shapes; the contract gate asks it.

Its session is in validate/sessions/, by the same name; its variants' limits are blocks of gates.toml with `target`.
"""

from __future__ import annotations

import pkgutil
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nemoport.artifact import Artifact, Recipe
from nemoport.calibration.cache import Progress
from nemoport.calibration.corpus import CalibrationAudio, Corpus
from nemoport.errors import UsageError
from nemoport.variant import Variant

if TYPE_CHECKING:
    from nemoport.export.checkpoint import Checkpoint


@dataclass(frozen=True)
class Source:
    """What a variant is converted from. corpus: of the precisions that hear audio."""

    checkpoint: Checkpoint
    build: Path
    corpus: Corpus | None

    def onnx(self, contract: str) -> Artifact:
        """The fp32 ONNX graphs by a contract, exported where they are not there yet."""
        from nemoport.export.build import export_checkpoint

        return export_checkpoint(self.checkpoint, self.build, contract)


def targets() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_target(name: str) -> ModuleType:
    """Raises UsageError for a target that does not exist, or whose packages are not installed."""
    if name not in targets():
        raise UsageError(
            f"Unknown target {name!r}.",
            expected=f"onnx or one of {', '.join(targets())}",
            found=name,
            todo="choose one of these",
        )
    module = import_module(f"{__name__}.{name}")
    if absent := [package for package in module.PACKAGES if find_spec(package) is None]:
        raise UsageError(
            f"The target {name} needs packages that are not installed.",
            expected=", ".join(module.PACKAGES),
            found=f"no {', no '.join(absent)}",
            todo=f"pip install 'nemoport[{module.EXTRA}]'",
        )
    return module


def export_target(
    checkpoint: Checkpoint, build: Path, target: str, precision: str, calibration: Path | None, *, progress: Progress
) -> Artifact:
    """Makes `build`/`target`-`precision`, or hands back what the same inputs made before.

    calibration: NeMo manifest, for the precisions that hear audio. Raises as `load_target`; UsageError for a precision that
    the target has not or a checkpoint that it cannot serve, CorpusError, CheckpointError, OutputError.
    """
    module = load_target(target)
    if precision not in module.PRECISIONS:
        raise UsageError(
            f"The target {target} has no precision {precision!r}.",
            expected=f"one of {', '.join(module.PRECISIONS)}",
            found=precision,
            todo="choose one of these",
        )
    from nemoport.export.build import write_beside

    name, parameters = f"{target}-{precision}", module.PRECISIONS[precision]
    if hasattr(module, "resolved"):
        parameters = module.resolved(parameters, checkpoint.spec)
    audio, rate_hz = CalibrationAudio(calibration), checkpoint.spec.frontend.sample_rate_hz
    corpus = audio.corpus(name, rate_hz) if precision in module.NEEDS_CALIBRATION else None
    recipe = Recipe(name, None, {"target": target, **asdict(parameters)})
    variant = Variant(build, recipe, checkpoint.sha256, corpus_digest=corpus.digest if corpus else None)
    if (existing := variant.existing()) is not None:
        return existing
    with variant.new_folder() as folder:
        variant.write_manifest(folder, module.convert(Source(checkpoint, build, corpus), folder, parameters, progress))
        write_beside(checkpoint, build)
    return Artifact.open(variant.folder)
