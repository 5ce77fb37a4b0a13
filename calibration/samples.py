"""Samples of activations, which smoothing needs: the largest magnitude of each channel of a tensor, and some of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

ROWS = 256  # kept of each tensor; 0.4 GB for all of the published model's


class SampleCollector:
    """Takes every row of every named tensor and keeps `ROWS` of each, drawn evenly from all, whatever their number.

    The draw (algorithm R, Vitter 1985) is a function of the rows' number and order alone, so that a run that was
    interrupted has the same result as one that was not.
    """

    settings: ClassVar[Mapping[str, Any]] = {"rows": ROWS}

    def __init__(self, tensors: Sequence[str]):
        self.tensors = list(tensors)
        self.seen = np.zeros(len(self.tensors), np.int64)  # rows so far, of each tensor
        self.max_abs: dict[str, np.ndarray] = {}  # f32 [channels]
        self.kept: dict[str, np.ndarray] = {}  # f32 [ROWS, channels]; the first `seen` of them are filled

    def update(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds the rows of one chunk. values: f32 [..., channels] by tensor name, all of them."""
        for index, tensor in enumerate(self.tensors):
            rows = values[tensor].reshape(-1, values[tensor].shape[-1])
            largest: np.ndarray = np.abs(rows).max(0)
            self.max_abs[tensor] = np.maximum(self.max_abs.get(tensor, largest), largest)
            kept = self.kept.setdefault(tensor, np.zeros((ROWS, rows.shape[1]), np.float32))
            positions = self.seen[index] + np.arange(len(rows))
            draws = np.random.default_rng([index, int(self.seen[index])]).integers(0, positions + 1)
            places = np.where(positions < ROWS, positions, draws)
            inside = places < ROWS
            kept[places[inside]] = rows[inside]
            self.seen[index] += len(rows)

    def rows(self, tensor: str) -> np.ndarray:
        """The rows that are kept of a tensor: f32 [n, channels], n at most `ROWS`."""
        return self.kept[tensor][: self.seen[self.tensors.index(tensor)]]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The whole state, for `numpy.savez`; the inverse of `from_arrays`."""
        arrays = {f"max_abs/{i}": self.max_abs[name] for i, name in enumerate(self.tensors)}
        arrays |= {f"kept/{i}": self.kept[name] for i, name in enumerate(self.tensors)}
        return {"tensors": np.array(self.tensors), "seen": self.seen, **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        collector = cls(arrays["tensors"].tolist())
        collector.seen = np.array(arrays["seen"])
        for i, name in enumerate(collector.tensors):
            collector.max_abs[name] = np.array(arrays[f"max_abs/{i}"])
            collector.kept[name] = np.array(arrays[f"kept/{i}"])
        return collector

    def summary(self) -> dict[str, Any]:
        """Tensor -> number of its rows, and the largest magnitudes of its largest channel and of its median one."""
        return {
            tensor: {
                "rows": int(self.seen[i]),
                "largest": float(self.max_abs[tensor].max()),
                "median_channel": float(np.median(self.max_abs[tensor])),
            }
            for i, tensor in enumerate(self.tensors)
        }
