"""What a model can be exported to: the precisions of each target, layouts of its packages, and why it cannot be the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from nemoport.cache_layout import KV, NEMO, check_layout, variant_of
from nemoport.errors import UsageError
from nemoport.export.target import Target
from nemoport.export.targets import targets
from nemoport.package.layouts import layouts, load_layout
from nemoport.pipeline.variants import ONNX
from nemoport.quantize import precisions
from nemoport.runtimes import load_runtime
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces
from nemoport.variant import FP32

PARENT = "smoothed"  # which only others are made of


@dataclass(frozen=True)
class Exports:
    """What a model can be in a target's format.

    precisions: that can be made, and refused: the others -> why. layouts: of its packages -> each thing for which their consumer
    cannot run the model, none where it can. absent: packages of the target that are not installed here.
    """

    target: str
    precisions: tuple[str, ...]
    refused: dict[str, str]
    layouts: dict[str, tuple[str, ...]]
    absent: tuple[str, ...]


def exports(spec: ModelSpec, pieces: Pieces) -> list[Exports]:
    """What a model can be exported to, for every target. Imports no heavy package."""
    found = []
    for name, target in targets().items():
        refused = dict(_onnx(spec) if name == ONNX else _others(target, spec))
        made = tuple(precision for precision, why in refused.items() if not why)
        runtime = load_runtime("onnxruntime" if name == ONNX else name).name
        packages = {
            one: tuple(load_layout(one).problems(spec, pieces)) for one in layouts() if load_layout(one).runtime == runtime
        }
        absent = tuple(module for module in target.modules if find_spec(module) is None)
        found.append(Exports(name, made, {one: why for one, why in refused.items() if why}, packages if made else {}, absent))
    return found


def _onnx(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Each variant, and why the model cannot be it, or ""."""
    names = [FP32, *(name for name in precisions() if name != PARENT)]
    for layout in (NEMO, KV):
        why = ""
        try:
            check_layout(layout, spec)
        except UsageError as error:
            why = error.what
        yield from ((variant_of(layout, name), why) for name in names)


def _others(target: Target, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    for name, parameters in target.precisions.items():
        why = ""
        try:
            target.check_precision(name, spec)
        except UsageError as error:
            why = error.found
        try:
            if not why:
                target.resolve(target.windowed(parameters, spec), spec)
        except UsageError as error:
            why = f"{error.found}, not {error.expected}"
        yield name, why
