"""A graph that cannot be told how many frames of its last window count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.ports import ATTENTION, COUNTS, LENGTH, SCORES, SIGNAL
from nemoport.package.doctor.check import NOTE, WARNING, Check, Found
from nemoport.package.doctor.examined import Examined, Opened
from nemoport.package.doctor.probe import frames_of, later_chunk

_EXPECTED = "a length by which the last window ends where the audio does"


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    ports, known = model.encoder.ports, examined.consumer
    if known and "tail" in known.behaviour and ports.streaming:
        yield Found(model.name, _EXPECTED, f"{known.name} {known.behaviour['tail']}", NOTE)
        return
    fixed = ports.streaming or ports.inputs[SIGNAL].shape[2] is not None or ports.inputs[SIGNAL].shape[0] != 1
    if LENGTH not in ports.inputs and ATTENTION not in ports.inputs and fixed:
        yield Found(model.name, _EXPECTED, f"no input for it: {', '.join(model.encoder.graph.interface.inputs)}", WARNING)
        return
    if COUNTS not in ports.outputs and SCORES not in ports.outputs and ports.streaming:
        yield Found(model.name, _EXPECTED, "no output for the number of valid frames", WARNING)
        return
    try:
        yield from _run(model, examined.opened(model))
    except ArtifactError:  # the check `runs` names it
        return


def _run(model: ForeignModel, opened: Opened) -> Iterator[Found]:
    if not opened.encoder or not opened.spec or opened.spec.streaming is None:
        return
    streaming = opened.spec.streaming
    lookahead = max(streaming.lookaheads)
    if lookahead == 0:
        return
    feeds = later_chunk(opened.encoder, opened.spec, lookahead)
    _, whole = frames_of(opened.encoder, feeds)
    _, shorter = frames_of(opened.encoder, {**feeds, LENGTH: np.asarray(feeds[LENGTH]) - streaming.subsampling_factor})
    if int(shorter[0]) >= int(whole[0]):
        yield Found(
            model.name, _EXPECTED, f"{int(whole[0])} frames of a whole window, {int(shorter[0])} of a shorter one", WARNING
        )


CHECK = Check(
    "a tail that is not flushed",
    "What fills no window is decoded with its padding, as speech, or not at all: the last word of each recording is lost.",
    "Export with `length` as an input and the count of frames as an output; with such a graph feed a window of silence behind "
    "the audio.",
    ("https://github.com/k2-fsa/sherpa-onnx/issues/3782", "https://github.com/OHF-Voice/wyoming-faster-whisper/pull/125"),
    in_model=find,
    runs=True,
)
