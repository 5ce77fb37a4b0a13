"""int8-smoothquant with s8 activations around zero, the form that TensorRT takes: it has no zero points.

An activation that is mostly of one sign gets half the steps. onnxruntime's CPU provider can run this variant, so that its
WER can be measured there, but computes the products of q, k and v in floats. Weights keep their full range: 2 x 128 x 127
fits 16 bits. onnxruntime on x86 converts the activations to u8, though, and without VNNI that overflows: measure on a
processor that has VNNI.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from nemoport.quantize import int8_smoothquant, int8_static
from nemoport.quantize.precision import Precision


@dataclass(frozen=True)
class Parameters(int8_smoothquant.Parameters):
    signed: bool = True
    pair_limit: int | None = None


PRECISION = Precision(
    parameters=Parameters(),
    convert=int8_static.convert,
    needs=int8_static.PRECISION.needs,
    needs_calibration=True,
    made_of=attrgetter("parent"),
)
