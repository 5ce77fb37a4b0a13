"""`nemoport inspect`: what a checkpoint is and what it can be exported to, or every reason for which it is not exported."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nemoport.cli.command import Command, option
from nemoport.cli.options import CHECKPOINT_HELP, HEAD, JSON
from nemoport.errors import UsageError
from nemoport.text import clipped, columns, printable

if TYPE_CHECKING:
    from nemoport.export.checkpoint import Checkpoint
    from nemoport.export.inspection import Inspection
    from nemoport.pipeline.exports import Exports

FORMATS = {"nemo": ".nemo file", "safetensors": "safetensors of Hugging Face transformers"}


def run(options: argparse.Namespace) -> int:
    from nemoport.export.inspection import inspect
    from nemoport.pipeline.exports import exports

    found = inspect(options.checkpoint, options.head)
    checkpoint = found.checkpoint
    made = exports(checkpoint.spec, checkpoint.pieces) if checkpoint else []
    print(json.dumps(_json(found, made)) if options.json else printable(_text(found, made)))
    return 0 if checkpoint else UsageError.exit_code


def _json(found: Inspection, made: list[Exports]) -> dict[str, Any]:
    checkpoint = found.checkpoint
    return {
        "checkpoint": str(found.path),
        "base_model": found.base_model,
        "format": found.format,
        "bytes": found.file_bytes,
        "model": found.model,
        "exported": checkpoint is not None,
        "kind": found.kind,
        "heads": list(found.heads),
        "parameters": found.parameters,
        "dtypes": found.dtypes,
        **({"spec": checkpoint.spec.to_dict(), **_facts(checkpoint)} if checkpoint else {"sizes": found.sizes}),
        **({"what": found.what, "reasons": list(found.reasons), "todo": found.todo} if checkpoint is None else {}),
        "targets": {
            one.target: {
                "precisions": list(one.precisions),
                "refused": one.refused,
                "layouts": {name: list(problems) for name, problems in one.layouts.items()},
                "not_installed": list(one.absent),
            }
            for one in made
        },
    }


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What follows from a spec."""
    from nemoport.export.config import default_lookahead

    spec, streaming = checkpoint.spec, checkpoint.spec.streaming
    latencies = {str(r): streaming.chunk_ms(r, spec.frontend) for r in streaming.lookaheads} if streaming else {}
    return {
        "tokens": len(checkpoint.tokens),
        "tokenizer": "SentencePiece" if checkpoint.tokenizer else "",
        "languages": list(spec.prompt.languages) if spec.prompt else [],
        "latency_ms_by_lookahead": latencies,
        "default_lookahead": default_lookahead(spec) if streaming else None,
    }


def _text(found: Inspection, made: list[Exports]) -> str:
    rows = [*_model_rows(found), *(row for one in made for row in _export_rows(one))]
    verdict = found.kind if found.checkpoint else "not exported"
    return "\n".join([f"{found.path}: {verdict}", "", *columns(rows)])


def _model_rows(found: Inspection) -> Iterator[tuple[str, str]]:
    """The rows on the model: a name and what there is to say."""
    checkpoint = found.checkpoint
    yield "container", f"{FORMATS[found.format]}, {found.file_bytes / 1e6:,.1f} MB"
    if found.model or found.what:
        yield "model", ": ".join(part for part in (clipped(found.model), found.what) if part)
    if found.parameters:
        parts = ", ".join(f"{part} {_millions(size)}" for part, size in found.parameters.items())
        yield "weights", f"{_millions(sum(found.parameters.values()))} in {', '.join(found.dtypes)}: {parts}"
    elif found.unread:
        yield "weights", f"not known: {found.unread}"
    if checkpoint is None:
        if found.sizes:
            yield "sizes", ", ".join(f"{key} {value}" for key, value in found.sizes.items())
        if found.kind:
            yield "nearest", found.kind
        yield from (("reason" if i == 0 else "", reason) for i, reason in enumerate(found.reasons))
        yield "do", found.todo
    else:
        yield from _spec_rows(found, checkpoint)


def _spec_rows(found: Inspection, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    from nemoport.export.config import default_lookahead

    spec = checkpoint.spec
    encoder, frontend, streaming = spec.encoder, spec.frontend, spec.streaming
    heads = f"{found.heads[0]} (default), {', '.join(found.heads[1:])} (--head)" if found.heads[1:] else found.heads[0]
    yield "head", heads
    yield "encoder", f"{encoder.n_layers} layers of width {encoder.d_model}, {encoder.n_heads} heads"
    yield "audio", f"{frontend.sample_rate_hz} Hz, {frontend.n_mels} mel bands, normalised: {frontend.normalize}"
    if streaming:
        rights = (f"{r} ({streaming.chunk_ms(r, frontend):g} ms)" for r in streaming.lookaheads)
        yield (
            "lookahead",
            f"{', '.join(rights)}; default {default_lookahead(spec)}; left context {streaming.left_context_enc_frames} frames",
        )
    else:
        yield "context", "the whole recording"
    if buffered := spec.buffered:
        menus = (("left", buffered.lefts), ("chunk", buffered.chunks), ("right", buffered.rights))
        frames = "; ".join(f"{name} {', '.join(map(str, menu))}" for name, menu in menus)
        default = buffered.context()
        yield "windows", f"{frames} frames; default {default}: {1000 * default.latency_enc_frames * spec.frame_seconds:g} ms"
    if spec.events:
        yield "events", ", ".join(spec.events.kinds.values())
    if spec.prompt:
        names = list(spec.prompt.languages)
        yield "languages", f"{len(names)} names: {', '.join(names[:12])}{', ...' if names[12:] else ''}"
    yield "tokenizer", f"{'SentencePiece' if checkpoint.tokenizer else 'none'}, {len(checkpoint.tokens)} tokens and blank"


def _export_rows(one: Exports) -> Iterator[tuple[str, str]]:
    absent = f" (not installed here: {', '.join(one.absent)})" if one.absent and one.precisions else ""
    yield one.target, ", ".join(one.precisions) + absent if one.precisions else "refused"
    for why, names in groupby(sorted(one.refused, key=lambda name: one.refused[name]), key=lambda name: one.refused[name]):
        yield "", f"refused: {', '.join(names)}: {why}"
    for name, problems in one.layouts.items():
        yield "", f"package {name}: {'; '.join(problems) or 'yes'}"


def _millions(size: int) -> str:
    return f"{size / 1e6:,.1f} M"


COMMAND = Command(
    "inspect",
    "print what a checkpoint is and what it can be exported to, or why not (exit code 2)",
    (
        option("checkpoint", help=CHECKPOINT_HELP),
        HEAD,
        JSON,
    ),
    run,
    examples=("nemoport inspect my.nemo", "nemoport inspect my.nemo --json"),
    extras="export",
)
