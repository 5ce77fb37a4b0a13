"""Writes the build folder of a checkpoint: config.json, shared/, and a folder for each variant. A variant that the same inputs
made before is reused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nemoport.artifact import Artifact, Recipe
from nemoport.cache_layout import NEMO, check_layout, variant_of
from nemoport.config import read_config
from nemoport.errors import OutputError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.config import runtime_config
from nemoport.export.shared import write_shared
from nemoport.files import write_json
from nemoport.graph_file import OPSET
from nemoport.progress import Progress, silent, step
from nemoport.resources import Needs, check_free
from nemoport.spec import ModelSpec
from nemoport.variant import FP32, GRAPH_ROLES, Variant

NEEDS = Needs(memory=2.2, held=2.1, disk=1.8)  # the weights twice in memory; torch's own files of them on the disk


def export_checkpoint(checkpoint: Checkpoint, build: Path, layout: str = NEMO, progress: Progress = silent) -> Artifact:
    """Exports the fp32 ONNX graphs of a checkpoint: the variant fp32, or kv-fp32 in the cache layout kv (cache_layout.py).

    Raises UsageError for an unknown cache layout, CheckpointError, ResourceError, or OutputError if `build` holds another
    checkpoint's graphs.
    """
    recipe = onnx_recipe(checkpoint.spec, layout)
    return build_variant(checkpoint, build, recipe, lambda folder: fill(checkpoint, folder, layout), None, NEEDS, progress)


def onnx_recipe(spec: ModelSpec, layout: str) -> Recipe:
    """The recipe of the fp32 ONNX graphs in a cache layout. Raises UsageError as `check_layout`."""
    check_layout(layout, spec)
    streaming = spec.streaming
    profile: dict = {"lookaheads": list(streaming.lookaheads)} if streaming else {}
    if streaming and streaming.attention_lookahead is not None:
        profile["attention_lookahead"] = streaming.attention_lookahead
    return Recipe(variant_of(layout, FP32), None, {"contract": layout, "opset": OPSET, **profile})


def fill(checkpoint: Checkpoint, folder: Path, layout: str) -> dict[str, str]:
    """Writes the ONNX graphs into `folder` and returns role -> path."""
    from nemoport.export.onnx_graphs import export_graphs

    export_graphs(checkpoint, folder, layout)
    return GRAPH_ROLES


def build_variant(
    checkpoint: Checkpoint,
    build: Path,
    recipe: Recipe,
    fill: Callable[[Path], dict[str, str]],
    corpus_digest: str | None = None,
    needs: Needs = Needs(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> Artifact:
    """Builds the variant of a recipe, or returns what the same inputs made before.

    fill: writes its files into an empty folder and returns role -> path of each; an error of it leaves `build` as it was.
    corpus_digest: of the calibration audio, where any is used. needs: memory and disk that `fill` takes. Raises OutputError if
    other inputs made the variant that is there, `build` is of the other head of a hybrid, or the disk has too little room,
    ResourceError for too little memory.
    """
    _check_head(checkpoint, build)
    variant = Variant(build, recipe, checkpoint.sha256, corpus_digest=corpus_digest)
    if variant.is_built():
        write_sidecars(checkpoint, build)
        artifact = variant.opened()
        artifact.verify_files()
        return artifact
    check_free(recipe.variant, checkpoint.weights_bytes, needs, build, progress)
    with step(f"{recipe.variant}: exporting", progress), variant.new_folder() as folder:
        variant.write_manifest(folder, fill(folder))
        write_sidecars(checkpoint, build)  # before the variant is there, which is not usable without them
    return variant.opened()


def _check_head(checkpoint: Checkpoint, build: Path) -> None:
    """Raises OutputError where the build is of the other head of a hybrid: its variants would count as built."""
    if not checkpoint.hybrid or not (build / "config.json").is_file():
        return
    config = read_config(build)
    kind = config["spec"]["kind"]
    if config["checkpoint"]["sha256"] == checkpoint.sha256 and kind != checkpoint.spec.kind:
        raise OutputError(
            f"{build} has the graphs of this checkpoint's other head.",
            expected=checkpoint.spec.kind,
            found=kind,
            todo="choose another --build for this head",
        )


def write_sidecars(checkpoint: Checkpoint, build: Path) -> None:
    """Writes config.json and shared/, which all variants of a checkpoint have in common. Files that are right already stay."""
    write_shared(checkpoint, build / "shared")
    write_json(build / "config.json", runtime_config(checkpoint))
