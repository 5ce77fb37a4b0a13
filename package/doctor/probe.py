"""Chunks of noise for a streaming encoder, and what comes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.adapter import Adapter
from nemoport.foreign.ports import CHANNEL, COUNTS, FILLED, FRAMES, NEXT, SCORES, TIME
from nemoport.foreign.session import first_feeds
from nemoport.runtimes.onnxruntime.session import run
from nemoport.spec import ModelSpec

KV_FILLED = "cache_len"


def later_chunk(encoder: Adapter, spec: ModelSpec, lookahead: int, batch: int = 1) -> dict[str, Any]:
    """Feeds of a chunk of streams whose caches are full, with noise in them."""
    streaming = spec.require_streaming()
    feeds = first_feeds(encoder, spec, streaming.window_mel_frames(lookahead, first=False), batch)
    random = np.random.default_rng(1)
    for name, value in feeds.items():
        if name in (FILLED, KV_FILLED):
            feeds[name] = np.full(batch, streaming.left_context_enc_frames)
        elif "cache" in name:
            feeds[name] = random.normal(0.0, 1.0, value.shape).astype(np.float32)
    return feeds


def frames_of(encoder: Adapter, feeds: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Runs an encoder: frames f32 [B, d, T'], or scores of a CTC model [B, T', V + 1], and their counts i64 [B]. Raises
    ArtifactError."""
    made = SCORES if SCORES in encoder.ports.outputs else FRAMES
    frames, counts = run(encoder, (made, COUNTS), feeds)
    return frames, counts


def caches_after(encoder: Adapter, feeds: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Runs an encoder of NeMo's cache layout: the channel and time caches and the count that it returns; None for another."""
    if not {CHANNEL, TIME, FILLED} <= set(encoder.ports.outputs):
        return None
    channel, time, filled = run(encoder, tuple(NEXT[key] for key in (CHANNEL, TIME, FILLED)), feeds)
    return channel, time, np.asarray(filled).reshape(-1)


def runs(encoder: Adapter, feeds: dict[str, Any]) -> str:
    """Returns "" for an encoder that gives finite frames, else what it gives."""
    try:
        frames, counts = frames_of(encoder, feeds)
    except ArtifactError as error:
        return error.found
    axis = 1 if SCORES in encoder.ports.outputs else 2
    if not (0 < int(counts[0]) <= frames.shape[axis]):
        return f"{int(counts[0])} valid frames of {frames.shape[axis]}"
    valid = np.take(frames[0], np.arange(int(counts[0])), axis - 1)
    return "" if np.isfinite(valid).all() else "values that are not finite"
