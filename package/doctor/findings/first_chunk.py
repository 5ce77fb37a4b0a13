"""A graph that takes the first window of a stream for a later one."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.ports import PRE_CACHE, SIGNAL
from nemoport.package.doctor.check import NOTE, WARNING, Check, Found
from nemoport.package.doctor.examined import Examined

_EXPECTED = "a first window of 1 + 8r mel frames, none of whose frames is dropped"


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    ports, known = model.encoder.ports, examined.consumer
    if not ports.streaming:
        return
    if known and "first-chunk" in known.behaviour:
        yield Found(model.name, _EXPECTED, f"{known.name} {known.behaviour['first-chunk']}", NOTE)
        return
    size = ports.inputs[SIGNAL].shape[2]
    if size or PRE_CACHE in ports.inputs:
        # Whoever exports for a program that feeds such windows has no choice.
        severity = NOTE if examined.folder.settings.spec or PRE_CACHE in ports.inputs else WARNING
        yield Found(model.name, _EXPECTED, f"windows of {size or 'any'} frames with a cache in front, also the first", severity)
        return
    opened = examined.opened(model)
    if opened.encoder and opened.spec and opened.encoder.left_mel_frames:
        dropped = opened.spec.require_streaming().drop_enc_frames
        yield Found(model.name, _EXPECTED, f"{dropped} frames are dropped of the first window too", WARNING)


CHECK = Check(
    "a padded first chunk",
    "NeMo's stream begins with a window that has nothing before it. Where nine zero frames are put before it, or its first two "
    "frames are dropped, every frame of the stream differs: the first words are lost, and others with them (5.5 to 10 % WER in a "
    "public report).",
    "Export with `nemoport export`, whose graph knows a first window by its length; with such a graph feed 160 ms of silence "
    "first.",
    ("https://github.com/k2-fsa/sherpa-onnx/issues/3782", "https://github.com/NVIDIA-NeMo/Speech/pull/16273"),
    in_model=find,
    runs=True,
)
