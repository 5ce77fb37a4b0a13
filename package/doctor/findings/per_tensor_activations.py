"""Activations whose range is found anew over all frames and streams of a run."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined

_WHOLE = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")  # operators that have one range for their input


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    operators = model.encoder.graph.operators
    count = sum(number for (_, name), number in operators.items() if name in _WHOLE)
    if count:
        found = f"{count} ranges of whole tensors, by {', '.join(name for name in _WHOLE if _has(model, name))}"
        yield Found(model.name, "a range for each frame, block or calibrated tensor", found, WARNING)


def _has(model: ForeignModel, operator: str) -> bool:
    return any(name == operator for _, name in model.encoder.graph.operators)


CHECK = Check(
    "one range for all frames of a run",
    "One loud frame or channel takes the resolution of all others: the longer the recording, or the more streams in a batch, the "
    "more words are lost. The stock INT8 of parakeet-tdt-0.6b-v3 had 40 % WER on 390 s where fp32 had 10.",
    "Take weight-only blocks (MatMulNBits, `int8-weight`), ranges by row (`int8-dynamic` of nemoport), or smoothed and "
    "calibrated ones (`int8-smoothquant`).",
    ("https://github.com/istupakov/onnx-asr/issues/126", "https://github.com/cjpais/Handy/issues/1630"),
    in_model=find,
)
