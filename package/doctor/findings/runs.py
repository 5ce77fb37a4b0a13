"""Graphs that do not run, or give no finite frames, on noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.errors import NemoportError
from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.session import first_feeds
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined, Opened
from nemoport.package.doctor.probe import later_chunk, runs

_OFFLINE_MEL_FRAMES = 100  # a second


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    opened = examined.opened(model)
    if opened.error:
        yield Found(model.name, "a model that runs in onnxruntime", opened.error.found or opened.error.what)
    if opened.encoder is None or opened.spec is None:
        return
    if opened.spec.streaming:
        feeds = later_chunk(opened.encoder, opened.spec, max(opened.spec.streaming.lookaheads))
    else:
        feeds = first_feeds(opened.encoder, opened.spec, _OFFLINE_MEL_FRAMES)
    if wrong := runs(opened.encoder, feeds):
        yield Found(model.name, "finite frames of noise", wrong)
    elif wrong := _scores(opened):
        yield Found(model.scores.name if model.scores else model.name, "finite scores", wrong)


def _scores(opened: Opened) -> str:
    if not opened.session:
        return ""
    spec = opened.session.spec
    frames = np.random.default_rng(0).normal(0.0, 1.0, (1, 2, spec.encoder.d_model)).astype(np.float32)
    zeros = np.zeros(spec.decoding.state_shape(1), np.float32)
    try:
        scores, states = opened.session.step(frames, np.array([spec.decoding.blank_id], np.int32), (zeros, zeros))
    except NemoportError as error:
        return error.found
    return "" if all(np.isfinite(values).all() for values in (scores, *states)) else "values that are not finite"


CHECK = Check(
    "a graph that does not run",
    "Nothing is transcribed; or, where frames are not finite, a stream is silent from there on.",
    "Read the runtime's message. Graphs that were cut, edited or mixed from two exports have to be exported again.",
    in_model=find,
    runs=True,
)
