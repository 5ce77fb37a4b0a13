"""One file per precision; the file's name is the variant's name.

A precision is a module with `Parameters` (a frozen dataclass), `NEEDS_CALIBRATION` and `convert`, and, where it has
any, `COMPARISONS`: other parameters under other names, built to be measured and never packaged. It is made of the fp32
graph, or of the variant that its parameters name as `parent`.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nemoport.artifact import Artifact, Recipe
from nemoport.calibration.cache import Progress
from nemoport.calibration.corpus import CalibrationAudio
from nemoport.contract import contract_of, precision_of, variant_of
from nemoport.errors import UsageError
from nemoport.variant import FP32, Variant

if TYPE_CHECKING:
    from nemoport.quantize.sensitivity import Cost


def variants() -> dict[str, ModuleType]:
    """Name of each precision that can be built, and its module."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {m.__name__.rpartition(".")[2].replace("_", "-"): m for m in modules if hasattr(m, "convert")}


def build_variant(build: Path, variant: str, calibration: Path | None, *, progress: Progress) -> Artifact:
    """Makes `build`/`variant`, and its parent where that is not there, or hands back what the same inputs made before.

    variant: a precision, or kv- and a precision, which is the same of the kv contract's graph. calibration: NeMo
    manifest; needed by the variants that run the model on audio. Raises UsageError (no such variant), CorpusError,
    ArtifactError (no fp32 artifact), OutputError (made by other inputs, or not writable).
    """
    return _build(build, variant, CalibrationAudio(calibration), progress)


def _build(build: Path, variant: str, calibration: CalibrationAudio, progress: Progress) -> Artifact:
    contract, precision = contract_of(variant), precision_of(variant)
    module, parameters = _recipe(precision)
    fp32, made_of = (variant_of(contract, name) for name in (FP32, getattr(parameters, "parent", FP32)))
    parent = Artifact.open(build / fp32)
    if made_of != fp32:
        parent = _build(build, made_of, calibration, progress)
    corpus = calibration.corpus(variant, parent.spec.frontend.sample_rate_hz) if module.NEEDS_CALIBRATION else None
    target = Variant(
        build,
        Recipe(variant, made_of, asdict(parameters)),
        parent.manifest.checkpoint_sha256,
        parent.manifest.digest,
        corpus.digest if corpus else parent.manifest.corpus_digest,
    )
    if (existing := target.existing()) is not None:
        return existing
    parent.verify_files()
    with target.new_folder() as folder:
        module.convert(parent, folder, parameters, corpus, progress)
        target.write_manifest(folder)
    return Artifact.open(target.folder)


def measure_sensitivity(build: Path, calibration: Path | None, *, progress: Progress) -> dict[str, Cost]:
    """ "layer.module" -> what that part of the encoder costs when it alone has 4-bit weights; see sensitivity.py.

    Measured once; int4-mixed uses the same figures. Raises as `build_variant`.
    """
    from nemoport.quantize import int4_mixed

    parameters, audio = int4_mixed.Parameters(), CalibrationAudio(calibration)
    parent = _build(build, parameters.parent, audio, progress)
    return int4_mixed.prepare(parent, parameters, audio.corpus("int4-mixed", parent.spec.frontend.sample_rate_hz), progress).costs


def _recipe(variant: str):
    known = variants()
    for module in known.values():
        if variant in (comparisons := getattr(module, "COMPARISONS", {})):
            return module, comparisons[variant]
    if variant not in known:
        raise UsageError(
            f"There is no variant {variant!r}.",
            expected=f"one of {', '.join(sorted(known))}",
            found=repr(variant),
            todo="choose one of these; fp32 is built by `nemoport export`",
        )
    return known[variant], known[variant].Parameters()
