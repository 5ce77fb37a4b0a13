"""Integers of another width than the named consumer feeds."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.interface import I32, I64
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    if examined.consumer is None:
        return
    for part in model.parts:
        for name, port in part.ports.inputs.items():
            wanted = examined.consumer.integers.get(name)
            if wanted and port.tensor.dtype in (I32, I64) and port.tensor.dtype != wanted:
                yield Found(part.name, f"{port.name} {wanted}, which {examined.consumer.title} feeds", port.tensor.dtype)


CHECK = Check(
    "int64 where the program feeds int32, or the other way round",
    "Most runtimes refuse the first run. onnxruntime-genai writes 8 bytes for a token without a look at the type: with int32 the "
    "decoder reads beside it.",
    "Put a Cast behind the input, or take the program's layout of `nemoport package`.",
    ("https://github.com/soniqo/speech-core/pull/71",),
    in_model=find,
)
