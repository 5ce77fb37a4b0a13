"""Precisions: one module each, whose name is the variant's name. See precision.py; the other modules here serve them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact, Recipe
from nemoport.cache_layout import cache_layout_of, precision_of, variant_of
from nemoport.calibration.audio import CalibrationAudio
from nemoport.errors import UsageError
from nemoport.files import sha256_file
from nemoport.progress import Progress, step
from nemoport.quantize import int4_mixed
from nemoport.quantize.precision import Precision
from nemoport.quantize.sensitivity import Cost
from nemoport.quantize.student import read_student
from nemoport.resources import check_free
from nemoport.variant import FP32, Variant


def precisions() -> dict[str, Precision]:
    """All precisions that can be built, by name."""
    modules = {found.name: vars(importlib.import_module(f"{__name__}.{found.name}")) for found in pkgutil.iter_modules(__path__)}
    return {name.replace("_", "-"): module["PRECISION"] for name, module in modules.items() if "PRECISION" in module}


def build_variant(
    build: Path, variant: str, calibration: Path | None, student: Path | None = None, *, progress: Progress
) -> Artifact:
    """Builds `build`/`variant`, and its parent where that is missing; returns an existing one that has the same inputs.

    variant: a precision, or kv- and a precision, which is the same for the graphs in the kv cache layout. calibration: NeMo
    manifest; needed by the variants that run the model on audio. student: of `nemoport distill`, for a variant that is made of
    one. Raises UsageError (no such variant, or not of a student), CorpusError, ArtifactError (no fp32 artifact, no student or
    another model's), OutputError (made from other inputs, or not writable)."""
    if student is not None:
        return _build_of_student(build, variant, student, progress)
    return _build(build, variant, CalibrationAudio(calibration), progress)


def _build_of_student(build: Path, variant: str, student: Path, progress: Progress) -> Artifact:
    layout = cache_layout_of(variant)
    precision, _ = _find(precision_of(variant))
    if precision.convert_student is None:
        able = ", ".join(name for name, one in precisions().items() if one.convert_student)
        raise UsageError(f"{variant} is not made of a student.", expected=able, found=variant, todo="leave --student out")
    fp32 = variant_of(layout, FP32)
    parent = Artifact.open(build / fp32)
    trained = read_student(student, parent.manifest.checkpoint_sha256)
    recipe = Recipe(variant, fp32, {"student": sha256_file(student), "steps": trained.steps})
    target = Variant(build, recipe, parent.manifest.checkpoint_sha256, parent.manifest.digest, trained.corpus_digest)
    if (existing := target.existing()) is not None:
        return existing
    _check_free(variant, precision, parent, progress)
    parent.verify_files()
    with step(f"{variant}: converting", progress), target.new_folder() as folder:
        precision.convert_student(parent, folder, trained, progress)
        target.write_manifest(folder)
    return target.opened()


def _build(build: Path, variant: str, calibration: CalibrationAudio, progress: Progress) -> Artifact:
    layout = cache_layout_of(variant)
    precision, parameters = _find(precision_of(variant))
    fp32, made_of = (variant_of(layout, name) for name in (FP32, precision.made_of(parameters)))
    parent = Artifact.open(build / fp32)
    if made_of != fp32:
        parent = _build(build, made_of, calibration, progress)
    corpus = calibration.corpus(variant, parent.spec.frontend.sample_rate_hz, progress) if precision.needs_calibration else None
    target = Variant(
        build,
        Recipe(variant, made_of, asdict(parameters)),
        parent.manifest.checkpoint_sha256,
        parent.manifest.digest,
        corpus.digest if corpus else parent.manifest.corpus_digest,
    )
    if (existing := target.existing()) is not None:
        return existing
    _check_free(variant, precision, parent, progress)
    parent.verify_files()
    with step(f"{variant}: converting", progress), target.new_folder() as folder:
        precision.convert(parent, folder, parameters, corpus, progress)
        target.write_manifest(folder)
    return target.opened()


def measure_sensitivity(build: Path, calibration: Path | None, *, progress: Progress) -> Mapping[str, Cost]:
    """Measures what each part of the encoder costs when it alone has 4-bit weights: "layer.module" -> cost.

    Measured once and kept; int4-mixed uses the same figures, see sensitivity.py. Raises as `build_variant`.
    """
    parameters, audio = int4_mixed.PRECISION.parameters, CalibrationAudio(calibration)
    parent = _build(build, parameters.parent, audio, progress)
    corpus = audio.corpus("int4-mixed", parent.spec.frontend.sample_rate_hz, progress)
    _check_free("sensitivity", int4_mixed.PRECISION, parent, progress)
    return int4_mixed.prepare(parent, parameters, corpus, progress).costs


def _check_free(stage: str, precision: Precision, parent: Artifact, progress: Progress) -> None:
    """As `check_free`. What is kept of calibrations counts as there, whichever it is of."""
    weights = sum(entry.bytes for entry in parent.manifest.files.values())
    kept = sum(state.stat().st_size for state in (parent.folder.parent / "calibration").glob("*/state.npz"))
    check_free(stage, weights, precision.needs, parent.folder.parent, progress, kept)


def _find(name: str) -> tuple[Precision, Any]:
    """The precision of this name, or the one that has a comparison of this name, and the parameters. Raises UsageError."""
    known = precisions()
    if name in known:
        return known[name], known[name].parameters
    for precision in known.values():
        if name in precision.comparisons:
            return precision, precision.comparisons[name]
    raise UsageError(
        f"There is no variant {name!r}.",
        expected=f"one of {', '.join(sorted(known))}",
        found=repr(name),
        todo="choose one of these; fp32 is built by `nemoport export`",
    )
