"""Checkpoint -> build folder: config.json, shared/, fp32/ or kv-fp32/. Run again, it reuses what the same inputs made."""

from __future__ import annotations

from pathlib import Path

from nemoport.artifact import Artifact, Recipe
from nemoport.contract import KV, NEMO, variant_of
from nemoport.errors import UsageError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.config import runtime_config
from nemoport.export.onnx import OPSET, export_graphs
from nemoport.export.shared import write_shared
from nemoport.files import write_json
from nemoport.variant import FP32, Variant


def export_checkpoint(checkpoint: Checkpoint, build: Path, contract: str = NEMO) -> Artifact:
    """contract: see nemoport/contract.py. Raises UsageError for another, CheckpointError, or OutputError if `build` holds
    another checkpoint's graphs."""
    if contract not in (NEMO, KV):
        raise UsageError(f"Unknown contract {contract!r}.", expected=f"{NEMO} or {KV}", found=contract, todo="choose one")
    if contract == KV and checkpoint.spec.streaming is None:
        raise UsageError(
            "An offline model has no caches.", expected=NEMO, found=KV, todo="leave the contract out: there is one graph"
        )
    streaming = checkpoint.spec.streaming
    profile = {"lookaheads": list(streaming.lookaheads)} if streaming else {}
    if streaming and streaming.attention_lookahead is not None:
        profile["attention_lookahead"] = streaming.attention_lookahead
    recipe = Recipe(variant_of(contract, FP32), None, {"contract": contract, "opset": OPSET, **profile})
    variant = Variant(build, recipe, checkpoint.sha256)
    if (existing := variant.existing()) is not None:
        return existing
    with variant.new_folder() as folder:
        export_graphs(checkpoint, folder, contract)  # refuses what cannot be exported, before anything stands in `build`
        variant.write_manifest(folder)
        write_beside(checkpoint, build)
    return Artifact.open(variant.folder)


def write_beside(checkpoint: Checkpoint, build: Path) -> None:
    """What all variants of a checkpoint share."""
    write_shared(checkpoint, build / "shared")
    write_json(build / "config.json", runtime_config(checkpoint))
