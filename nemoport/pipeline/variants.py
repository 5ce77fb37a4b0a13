"""Which variants `nemoport run` builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nemoport.cache_layout import KV, NEMO, cache_layout_of, precision_of, variant_of
from nemoport.errors import UsageError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.targets import export_target, load_target
from nemoport.progress import Progress
from nemoport.quantize import build_variant, precisions
from nemoport.resources import Needs
from nemoport.spec import ModelSpec
from nemoport.validate.limits import read_limits
from nemoport.variant import FP32

ONNX = "onnx"
# By default: what the card of a package compares, and what runs fast.
DEFAULT = {
    NEMO: (FP32, "fp16", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight"),
    KV: (FP32, "int8-dynamic", "int8-weight"),
}
QUICK = (FP32, "int8-weight")  # the nearest to fp32 of the small ones; it needs no calibration


@dataclass(frozen=True)
class PlannedVariant:
    """A variant that will be there. target: of nemoport.export.targets; precision: with kv- in front for the layout kv;
    windows_s: see `Target.windowed`."""

    name: str
    target: str
    precision: str
    needs: Needs
    needs_calibration: bool
    windows_s: tuple[int, ...] = ()

    def build(self, checkpoint: Checkpoint, build: Path, calibration: Path | None, progress: Progress) -> None:
        """Builds it, or leaves what the same inputs made before. Raises as `export_target` and `build_variant`."""
        if self.target == ONNX and precision_of(self.precision) != FP32:
            build_variant(build, self.precision, calibration, progress=progress)
        else:
            layout, name = (cache_layout_of(self.precision), FP32) if self.target == ONNX else (NEMO, self.precision)
            windows = self.windows_s
            export_target(checkpoint, build, self.target, name, calibration, caches=layout, windows_s=windows, progress=progress)


def planned_variants(
    spec: ModelSpec,
    targets: Sequence[str] = (ONNX,),
    wanted: Sequence[str] = (),
    caches: Sequence[str] = (),
    quick: bool = False,
    windows_s: Sequence[int] = (),
) -> list[PlannedVariant]:
    """Returns the variants of a checkpoint in the order in which they are built: of ONNX fp32 first, in each cache layout.

    targets: see nemoport/export/targets. wanted: precisions, by default DEFAULT's or, if `quick`, QUICK's, and all of another
    target. caches: cache layouts of ONNX, by default both, for an offline model nemo alone; if `quick`, kv where there is one.
    windows_s: of the targets that have windows, see `Target.windowed`.
    Raises UsageError for a name that does not exist, as `load_target`, and for a target that has none of the precisions, or none
    for such a model.
    """
    layouts = tuple(caches) or ((NEMO,) if spec.streaming is None else (KV,) if quick else (NEMO, KV))
    _check("cache layout", layouts, (NEMO, KV) if spec.streaming else (NEMO,))
    loaded = {name: load_target(name) for name in targets}
    known = [FP32, *precisions(), *(name for target in loaded.values() for name in target.precisions)]
    _check("precision", wanted, list(dict.fromkeys(known)))
    planned: list[PlannedVariant] = []
    for name, target in loaded.items():
        if name == ONNX:
            found = _onnx_variants(layouts, wanted, quick)
        else:
            found = [
                PlannedVariant(f"{name}-{one}", name, one, target.needs, one in target.calibrated)
                for one in target.precisions_of(spec)
                if one in (wanted or target.precisions)
            ]
        if not found:
            for one in wanted or target.precisions:
                target.check_precision(one, spec)
        if windows_s and (target.windows_s or not any(one.windows_s for one in loaded.values())):
            target.windowed(next(iter(target.precisions.values()), None), spec, windows_s)
            found = [replace(one, windows_s=tuple(windows_s)) for one in found]
        planned += found
    judged = read_limits()
    if unknown := [one.name for one in planned if one.name not in judged]:
        found = ", ".join(unknown)
        raise UsageError(f"gates.toml has no limits for {found}.", expected=f"one of {', '.join(judged)}", found=found)
    return planned


def _onnx_variants(layouts: Sequence[str], wanted: Sequence[str], quick: bool) -> list[PlannedVariant]:
    known = precisions()
    found = []
    for layout in layouts:
        names = wanted or (QUICK if quick else DEFAULT[layout])
        for name in [FP32, *(name for name in known if name in names)]:  # the others are made of fp32
            precision = variant_of(layout, name)
            if name == FP32:
                found.append(PlannedVariant(precision, ONNX, precision, load_target(ONNX).needs, False))
            else:
                one, parent = known[name], known.get(known[name].made_of(known[name].parameters))
                calibrated = one.needs_calibration or (parent is not None and parent.needs_calibration)
                found.append(PlannedVariant(precision, ONNX, precision, one.needs, calibrated))
    return found


def _check(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"There is no {what} {name!r}.", expected=f"one of {', '.join(known)}", found=name)
