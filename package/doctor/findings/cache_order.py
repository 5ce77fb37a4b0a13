"""Caches in another order than their consumer's, swapped, or returned otherwise than they are fed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.ports import CHANNEL, TIME, Port, Ports
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.consumers import BATCH_FIRST, LAYER_FIRST
from nemoport.package.doctor.examined import Examined, Opened
from nemoport.package.doctor.probe import caches_after, later_chunk

_ALIKE = 0.5  # the least cosine of a cache and itself after a run


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    ports = model.encoder.ports
    if CHANNEL not in ports.inputs:
        return
    wrong = list(_shapes(ports))
    if not wrong and examined.consumer and examined.consumer.caches not in ("", order := _order(ports.inputs[CHANNEL])):
        wrong = [(f"{examined.consumer.caches}, for {examined.consumer.title}", f"{order}: {ports.inputs[CHANNEL].tensor}")]
    if not wrong:
        try:
            wrong = list(_run(examined.opened(model)))
        except ArtifactError:  # the check `runs` names it
            return
    yield from (Found(model.name, *one) for one in wrong)


def _order(port: Port) -> str:
    return LAYER_FIRST if port.axes[0] == 1 else BATCH_FIRST


def _shapes(ports: Ports) -> Iterator[tuple[str, str]]:
    channel, time = ports.inputs[CHANNEL], ports.inputs.get(TIME)
    if time and ports.swapped:
        yield "caches of frames in cache_last_channel", f"{channel.name} {channel.tensor}, {time.name} {time.tensor}"
        return
    for key, fed in ((CHANNEL, channel), (TIME, time)):
        back = ports.outputs.get(key)
        if fed and back and (fed.axes != back.axes or _differ(fed, back)):
            yield f"{back.name} as {fed.name} is fed: {fed.tensor}", str(back.tensor)


def _differ(fed: Port, back: Port) -> bool:
    return any(a and b and a != b for a, b in zip(fed.tensor.shape, back.tensor.shape, strict=True))


def _run(opened: Opened) -> Iterator[tuple[str, str]]:
    """Whether the frames that stay come back where the caches were fed with them, by layer and by stream."""
    if not opened.encoder or not opened.spec or opened.spec.streaming is None:
        return
    streaming, batch = opened.spec.streaming, opened.encoder.ports.inputs[CHANNEL].shape[0]
    lookahead = min(streaming.lookaheads)
    feeds = later_chunk(opened.encoder, opened.spec, lookahead, batch or 2)
    after = caches_after(opened.encoder, feeds)
    new = lookahead + 1
    if after is None:
        return
    for name, fed, back in (
        ("channel", feeds[CHANNEL][:, :, new:], after[0][:, :, :-new]),
        ("time", feeds[TIME][..., new:], after[1][..., :-new]),
    ):
        if fed.shape == back.shape and fed.size and (what := _moved(fed, back)):
            yield f"the {name} cache shifted by {new} frames, each layer and stream in its place", what


def _moved(fed: np.ndarray, back: np.ndarray) -> str:
    """Which of the caches [B, layers, ...] came back in the place of another; "" where each is most like itself. Quantized graphs
    round and clip them."""
    batch, layers = fed.shape[:2]
    rows = [np.nan_to_num(one.reshape(batch * layers, -1).astype(np.float64)) for one in (fed, back)]
    size = np.maximum([np.linalg.norm(one, axis=1) for one in rows], 1e-12)
    likeness = rows[1] @ rows[0].T / np.outer(size[1], size[0])
    for place, row in enumerate(likeness):
        nearest = int(row.argmax())
        if row[nearest] < _ALIKE:
            return f"other values for layer {place % layers}"
        if nearest != place:
            stream = "" if place // layers == nearest // layers else f" of stream {nearest // layers}"
            return f"layer {nearest % layers}{stream} in the place of layer {place % layers}"
    return ""


CHECK = Check(
    "caches in the wrong order",
    "Each layer or stream reads what another one wrote: after the first chunk the words are noise, or nothing at all. Where the "
    "shapes agree nothing fails.",
    "Feed and return caches in one order, and in the one that the program expects: batch first for sherpa-onnx and "
    "onnxruntime-genai, layer first for parakeet-rs and speech-core.",
    in_model=find,
    runs=True,
)
