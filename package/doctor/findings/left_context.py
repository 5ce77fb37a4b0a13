"""A left context that is not the checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.folder import ForeignFolder, ForeignModel
from nemoport.foreign.ports import CHANNEL
from nemoport.foreign.spec import LEFT_MULTILINGUAL, MULTILINGUAL_TOKENS
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined, Opened
from nemoport.package.doctor.probe import caches_after, frames_of, later_chunk


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    inputs = model.encoder.ports.inputs
    port = inputs.get(CHANNEL) or inputs.get("cache_key_0")
    if port is None or model.encoder.ports.swapped:
        return
    size = port.shape[2] if CHANNEL in inputs else port.tensor.shape[0]
    if size:
        for frames, place in _expected(examined.folder):
            if frames != size:
                yield Found(model.name, f"{frames} frames ({place})", f"caches of {size} frames")
                return
    opened = examined.opened(model)
    try:
        yield from _run(model, opened)
    except ArtifactError:  # the check `runs` names it
        return


def _expected(folder: ForeignFolder) -> Iterator[tuple[int, str]]:
    if spec := folder.settings.spec:
        if spec.streaming:
            yield spec.streaming.left_context_enc_frames, "config.json"
        return
    for one in folder.vocabularies:
        if len(one.pieces) in (MULTILINGUAL_TOKENS, MULTILINGUAL_TOKENS + 1):
            yield LEFT_MULTILINGUAL, f"the model with the {MULTILINGUAL_TOKENS} tokens of {one.name}"
    yield from folder.settings.left_contexts()


def _run(model: ForeignModel, opened: Opened) -> Iterator[Found]:
    """Whether the oldest frame of full caches is still seen, and whether they stay full."""
    if not opened.encoder or not opened.spec or opened.spec.streaming is None or CHANNEL not in opened.encoder.ports.inputs:
        return
    streaming = opened.spec.streaming
    left = streaming.left_context_enc_frames
    lookahead = max((r for r in streaming.lookaheads if left % (r + 1) == 0), default=None)
    if lookahead is None or not left:
        return
    feeds = later_chunk(opened.encoder, opened.spec, lookahead)
    before, _ = frames_of(opened.encoder, feeds)
    after = caches_after(opened.encoder, feeds)
    if after and int(after[2][0]) != left:
        yield Found(model.name, f"full caches stay full: {left} frames", f"{int(after[2][0])} frames after one more chunk")
        return
    changed = {**feeds, CHANNEL: feeds[CHANNEL].copy()}
    changed[CHANNEL][:, :, 0] += 3.0
    if np.array_equal(before, frames_of(opened.encoder, changed)[0]):
        yield Found(model.name, f"attention to all {left} cached frames", "the oldest one changes nothing")


CHECK = Check(
    "a wrong left context",
    "The encoder attends to more or fewer frames than it was trained with, from the moment when its caches are full: a few "
    "seconds into each stream words get worse. 70 frames of the English checkpoint have been built into conversions of the "
    "multilingual one, which has 56.",
    "Export again with the checkpoint's own att_context_size, and state the same number in every configuration.",
    ("https://github.com/NVIDIA/TensorRT-Model-Connect/pull/238",),
    in_model=find,
    runs=True,
)
