"""Activation ranges, in memory that does not grow with the audio: extremes and a histogram of fixed size per tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from nemoport.errors import ArtifactError, CorpusError, UsageError

BINS = 8192
METHODS = ("minmax", "percentile")
SHOWN_PERCENTILES = (99.9, 99.99, 99.999)
_SMALLEST_EXPONENT = -20  # histograms start at +-2**-20; what is smaller falls into the middle bins


@dataclass(frozen=True)
class Range:
    """The least and the largest value that a quantized tensor has to hold."""

    low: float
    high: float


class RangeCollector:
    """Takes every value of every named tensor and keeps 64 KiB a tensor, whatever the number of chunks.

    A histogram spans +-2**e in `BINS` bins. When a larger value comes, e grows and neighbouring bins merge. Bin edges
    are multiples of powers of two, so the bins of a coarse histogram are exact unions of those of a fine one: the
    result does not depend on the order of the data, nor on where a run was interrupted.
    """

    settings: ClassVar[Mapping[str, Any]] = {"bins": BINS}

    def __init__(self, tensors: Sequence[str]):
        self.tensors = list(tensors)
        self.low = np.full(len(self.tensors), np.inf)
        self.high = np.full(len(self.tensors), -np.inf)
        self.exponent = np.full(len(self.tensors), _SMALLEST_EXPONENT, np.int64)
        self.counts = np.zeros((len(self.tensors), BINS), np.int64)

    def update(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds the values of one chunk. values: f32 of any shape by tensor name, all of them. Raises ArtifactError on NaN or
        infinity."""
        for row, tensor in enumerate(self.tensors):
            flat = values[tensor].ravel()
            low, high = float(flat.min()), float(flat.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ArtifactError(
                    f"The tensor {tensor} is not finite.",
                    expected="finite activations on calibration audio",
                    found=f"values from {low} to {high}",
                    todo="check the fp32 artifact against the oracle first",
                )
            self.low[row], self.high[row] = min(self.low[row], low), max(self.high[row], high)
            self._grow(row, max(-low, high))
            # A power of two scales without rounding, so that a value has one bin at any width.
            scaled = np.floor(flat * np.float32(2.0 ** -float(self._bin_exponent(row))))
            self.counts[row] += np.bincount(scaled.astype(np.int32) + BINS // 2, minlength=BINS)

    def ranges(self, method: str, percentile: float = 100.0) -> dict[str, Range]:
        """Tensor -> its range: the extremes ("minmax"), or all but a share of 1 - percentile / 100 at either end.

        A percentile is the outer edge of its bin, no further out than the extremes: at most one bin width from exact.
        Raises UsageError (no such method), CorpusError (nothing was collected).
        """
        if method not in METHODS or not 50.0 < percentile <= 100.0:
            raise UsageError(
                "The calibration method is unknown.",
                expected=f"{' or '.join(METHODS)}, a percentile above 50 and up to 100",
                found=f"{method}, {percentile}",
                todo="correct the recipe",
            )
        if not self.counts.any(axis=1).all():
            raise CorpusError(
                "Calibration collected nothing.",
                expected="chunks with full caches",
                found="none",
                todo="give more audio, or lower min_cache_fill",
            )
        rows = range(len(self.tensors))
        if method == "minmax":
            return {self.tensors[i]: Range(float(self.low[i]), float(self.high[i])) for i in rows}
        return {self.tensors[i]: self._percentile(i, percentile / 100.0) for i in rows}

    def bin_width(self, tensor: str) -> float:
        """The width of a histogram bin, in the tensor's own unit: how far a percentile may be from exact."""
        return 2.0 ** self._bin_exponent(self.tensors.index(tensor))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The whole state, for `numpy.savez`; the inverse of `from_arrays`."""
        arrays = {"low": self.low, "high": self.high, "exponent": self.exponent, "counts": self.counts}
        return {"tensors": np.array(self.tensors), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        collector = cls(arrays["tensors"].tolist())
        for name in ("low", "high", "exponent", "counts"):
            setattr(collector, name, np.array(arrays[name]))
        return collector

    def summary(self) -> dict[str, Any]:
        """Tensor -> [low, high] by minmax and by some percentiles."""
        rows = {"minmax": self.ranges("minmax")}
        rows |= {f"p{p:g}": self.ranges("percentile", p) for p in SHOWN_PERCENTILES}
        return {
            tensor: {name: [ranges[tensor].low, ranges[tensor].high] for name, ranges in rows.items()} for tensor in self.tensors
        }

    def _bin_exponent(self, row: int) -> int:
        return int(self.exponent[row]) + 1 - (BINS.bit_length() - 1)

    def _grow(self, row: int, magnitude: float) -> None:
        while magnitude >= 2.0 ** int(self.exponent[row]):
            merged = self.counts[row].reshape(-1, 2).sum(1)
            self.counts[row] = 0
            self.counts[row, BINS // 4 : 3 * BINS // 4] = merged
            self.exponent[row] += 1

    def _percentile(self, row: int, share: float) -> Range:
        counts, width = self.counts[row], 2.0 ** self._bin_exponent(row)
        total = counts.sum()
        above = np.searchsorted(np.cumsum(counts), share * total)  # the bin in which the upper percentile lies
        below = BINS - 1 - np.searchsorted(np.cumsum(counts[::-1]), share * total)
        low, high = (below - BINS // 2) * width, (above + 1 - BINS // 2) * width
        return Range(max(low, float(self.low[row])), min(high, float(self.high[row])))
