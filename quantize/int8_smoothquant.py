"""INT8 with fixed activation ranges, as int8-static, made from the smoothed graph (see smoothing.py)."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from nemoport.quantize import int8_static
from nemoport.quantize.precision import Precision


@dataclass(frozen=True)
class Parameters(int8_static.Parameters):
    parent: str = "smoothed"


PRECISION = Precision(
    parameters=Parameters(),
    convert=int8_static.convert,
    needs=int8_static.PRECISION.needs,
    needs_calibration=True,
    made_of=attrgetter("parent"),
    comparisons={"int8-smoothquant-full-range": Parameters(pair_limit=None)},
)
