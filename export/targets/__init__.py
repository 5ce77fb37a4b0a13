"""The formats that checkpoints are converted to: each module or folder here defines TARGET, a `nemoport.export.target.Target`.

A target imports no heavy package at module level. Its variants are folders of the same build: openvino-fp32, litert-int8, ...
Their limits are the blocks of gates.toml with its name as `target`. Their runtime is in nemoport/runtimes, under the same name.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.cache_layout import NEMO, check_layout, variant_of
from nemoport.calibration.audio import CalibrationAudio
from nemoport.errors import UsageError
from nemoport.export.build import build_variant
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.target import Source, Target
from nemoport.progress import Progress
from nemoport.runtime import check_installed


def targets() -> dict[str, Target]:
    """Every target by its name."""
    found = [import_module(f"{__name__}.{module.name}").TARGET for module in pkgutil.iter_modules(__path__)]
    return {target.name: target for target in found}


def load_target(name: str) -> Target:
    """The target of a name. Raises UsageError for one that does not exist, or whose packages are not installed."""
    known = targets()
    if name not in known:
        raise UsageError(
            f"Unknown target {name!r}.", expected=f"one of {', '.join(known)}", found=name, todo="choose one of these"
        )
    check_installed(f"The target {name}", known[name].modules, known[name].extra)
    return known[name]


def export_target(
    checkpoint: Checkpoint,
    build: Path,
    target: str,
    precision: str,
    calibration: Path | None = None,
    *,
    caches: str = NEMO,
    windows_s: Sequence[int] = (),
    progress: Progress,
) -> Artifact:
    """Builds the variant of a target's precision, or returns what the same inputs made before.

    caches: the cache layout; the precision kv-fp32 is fp32 in the layout kv. calibration: NeMo manifest, for the precisions that
    need audio; windows_s: seconds, see `Target.windowed`; progress: is given a line for each step. Raises as `load_target`;
    UsageError for a precision that the target does not have or a checkpoint that it cannot be made of, CorpusError,
    CheckpointError, ResourceError, OutputError.
    """
    one = load_target(target)
    check_layout(caches, checkpoint.spec)
    name = variant_of(caches, precision)
    one.check_precision(name, checkpoint.spec)
    parameters = one.resolve(one.windowed(one.precisions[name], checkpoint.spec, windows_s), checkpoint.spec)
    recipe, rate_hz = one.recipe(name, parameters, checkpoint.spec), checkpoint.spec.frontend.sample_rate_hz
    corpus = CalibrationAudio(calibration).corpus(recipe.variant, rate_hz, progress) if name in one.calibrated else None

    def fill(folder: Path) -> dict[str, str]:
        return one.convert(Source(checkpoint, build, corpus, progress), folder, parameters, progress)

    return build_variant(checkpoint, build, recipe, fill, corpus.digest if corpus else None, one.needs, progress)
