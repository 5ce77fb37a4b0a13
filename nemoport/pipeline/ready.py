"""Variants that are ready, of a package or a build, judged as they are: copied into a build of the gate's own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import ONNXRUNTIME, Artifact, Manifest
from nemoport.cache_layout import NEMO, cache_layout_of
from nemoport.errors import UsageError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.targets import export_target
from nemoport.package.copying import copy_artifact, copy_file
from nemoport.package.manifest import NAME
from nemoport.package.opening import artifact_folders
from nemoport.package.verify import verify
from nemoport.pipeline.plan import Plan
from nemoport.pipeline.variants import ONNX
from nemoport.progress import Progress
from nemoport.validate.limits import limits_of
from nemoport.validate.run import Verdict, validate
from nemoport.variant import FP32


def judge_ready(plan: Plan, ready: Path, progress: Progress) -> Verdict:
    """Validates the variants of `ready` in the plan's build. A package is verified first. Raises ArtifactError for a damaged one,
    UsageError for variants of another checkpoint, and as `validate`."""
    folders = artifact_folders(ready)
    if (ready / NAME).is_file() and ready not in folders.values():
        verify(ready, progress=progress)
    _check_checkpoint(ready, folders, plan.checkpoint)
    for folder in folders.values():
        _take(folder, plan.build)
    _add_full_precision(plan, list(folders), progress)
    return validate(
        plan.checkpoint,
        plan.build,
        plan.speech.evaluation.path,
        list(folders),
        plan.speech.calibration.path,
        jobs=plan.jobs,
        baseline=False,
        progress=progress,
    )


def _check_checkpoint(ready: Path, folders: dict[str, Path], checkpoint: Checkpoint) -> None:
    others = [name for name, folder in folders.items() if Manifest.read(folder).checkpoint_sha256 != checkpoint.sha256]
    if others:
        raise UsageError(
            f"{ready} was made from another checkpoint.",
            expected=f"variants of {checkpoint.path.name}, sha256 {checkpoint.sha256[:12]}",
            found=f"others: {', '.join(others)}",
            todo="name the checkpoint that they were made from: the gates compare with NeMo's run of it",
        )


def _take(folder: Path, build: Path) -> None:
    """Copies a variant, with what it shares with others, into a build, in place of what was there."""
    artifact = Artifact.open(folder)
    (build / "shared").mkdir(parents=True, exist_ok=True)
    copy_file(folder.parent / "config.json", build / "config.json")
    for path in artifact.shared.iterdir():
        if path.is_file():
            copy_file(path, build / "shared" / path.name)
    _replace(artifact, build / artifact.manifest.variant)


def _replace(artifact: Artifact, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    copy_artifact(artifact, place)


def _add_full_precision(plan: Plan, variants: Sequence[str], progress: Progress) -> None:
    """Exports what the gate `cost` compares with, in full precision, where it is not among `variants`: beside, because a package
    of an earlier version has a config.json of its own."""
    beside = plan.build.with_name(f"{plan.build.name}-{FP32}")
    for name in sorted({limits_of(variant).fp32 for variant in variants} - set(variants)):
        target = limits_of(name).target
        layout, target = (cache_layout_of(name), ONNX) if target == ONNXRUNTIME else (NEMO, target)
        exported = export_target(plan.checkpoint, beside, target, FP32, None, caches=layout, progress=progress)
        _replace(exported, plan.build / name)
