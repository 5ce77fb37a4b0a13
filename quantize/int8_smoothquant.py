"""INT8 with fixed activation ranges, as int8-static, of the smoothed graph (see smoothing.py)."""

from __future__ import annotations

from dataclasses import dataclass

from nemoport.quantize import int8_static
from nemoport.quantize.int8_static import convert  # noqa: F401  the same, of another parent

NEEDS_CALIBRATION = True


@dataclass(frozen=True)
class Parameters(int8_static.Parameters):
    parent: str = "smoothed"


COMPARISONS = {"int8-smoothquant-full-range": Parameters(pair_limit=None)}
