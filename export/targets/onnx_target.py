"""ONNX: fp32 graphs in either cache layout, from which other formats and precisions (quantize/) are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemoport.artifact import Recipe
from nemoport.cache_layout import KV, NEMO, variant_of
from nemoport.export import build
from nemoport.export.target import NO_CACHES, Source, Target
from nemoport.progress import Progress
from nemoport.spec import ModelSpec
from nemoport.variant import FP32


@dataclass(frozen=True)
class Parameters:
    """layout: the cache layout, NEMO or KV."""

    layout: str


class OnnxTarget(Target):
    """The target whose variants have no prefix: fp32 and kv-fp32."""

    def recipe(self, precision: str, parameters: Parameters, spec: ModelSpec) -> Recipe:
        return build.onnx_recipe(spec, parameters.layout)


def convert(source: Source, folder: Path, parameters: Parameters, progress: Progress) -> dict[str, str]:
    """As `Target.convert`. Raises CheckpointError."""
    return build.fill(source.checkpoint, folder, parameters.layout)


TARGET = OnnxTarget(
    "onnx",
    {variant_of(layout, FP32): Parameters(layout) for layout in (NEMO, KV)},
    convert,
    buffered=True,
    streaming_only={variant_of(KV, FP32): NO_CACHES},
    needs=build.NEEDS,
)
