"""NaN or infinity in a weight."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.finite_weights import non_finite_weights
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined) -> Iterator[Found]:
    for part in examined.folder.parts:
        if not part.graph.damage and (bad := non_finite_weights(part.graph.path)):
            listed = ", ".join(f"{name}: {count}" for name, count in list(bad.items())[:5])
            yield Found(part.name, "finite weights", f"{sum(bad.values())} values that are not: {listed}")


CHECK = Check(
    "NaN or infinity in a weight",
    "An LSTM of onnxruntime clips its gates, so that NaN in a weight of it comes out as a number: every score is finite and the "
    "words are wrong. Elsewhere a stream falls silent from one chunk on.",
    "Convert it again. An fp16 conversion has infinities where a weight is beyond 65504; keep those weights in fp32.",
    in_folder=find,
)
