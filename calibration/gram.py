"""Gram matrices of activations: how the channels of a tensor vary together, which rounding with error feedback needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

ROWS_PER_ADDITION = 256  # a chunk has few rows, and each addition reads and writes a whole gram, 64 MB for 4096 channels


class GramCollector:
    """Sums X^T X over every row of every named tensor: f32 [channels, channels] each, whatever the number of rows.

    For the published model's layers that is 3.7 GB, and 0.3 GB for rows that are not added yet.
    """

    settings: ClassVar[Mapping[str, Any]] = {"statistic": "gram", "rows_together": ROWS_PER_ADDITION}

    def __init__(self, tensors: Sequence[str]):
        self.tensors = list(tensors)
        self.seen = np.zeros(len(self.tensors), np.int64)  # rows so far, of each tensor
        self._grams: dict[str, np.ndarray] = {}
        self._waiting: dict[str, list[np.ndarray]] = {}

    @property
    def grams(self) -> dict[str, np.ndarray]:
        """Tensor -> its gram f32 [channels, channels], of every row so far."""
        for tensor in self._waiting:
            self._add(tensor)
        return self._grams

    def update(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds the rows of one chunk. values: f32 [..., channels] by tensor name, all of them."""
        for index, tensor in enumerate(self.tensors):
            rows = values[tensor].reshape(-1, values[tensor].shape[-1])
            waiting = self._waiting.setdefault(tensor, [])
            waiting.append(rows)
            self.seen[index] += len(rows)
            if sum(map(len, waiting)) >= ROWS_PER_ADDITION:
                self._add(tensor)

    def _add(self, tensor: str) -> None:
        waiting = self._waiting[tensor]
        if waiting:
            rows = np.concatenate(waiting)
            waiting.clear()
            if tensor in self._grams:
                self._grams[tensor] += rows.T @ rows
            else:
                self._grams[tensor] = rows.T @ rows

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The whole state, for `numpy.savez`; the inverse of `from_arrays`."""
        arrays = {"tensors": np.array(self.tensors), "seen": self.seen}
        for i, name in enumerate(self.tensors):
            if name in self._grams:
                arrays[f"gram/{i}"] = self._grams[name]
            if self._waiting.get(name):  # not added, so that a resumed run rounds as one that was not interrupted
                arrays[f"waiting/{i}"] = np.concatenate(self._waiting[name])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        collector = cls(arrays["tensors"].tolist())
        collector.seen = np.array(arrays["seen"])
        for i, name in enumerate(collector.tensors):
            if f"gram/{i}" in arrays:
                collector._grams[name] = np.array(arrays[f"gram/{i}"])
            if f"waiting/{i}" in arrays:
                collector._waiting[name] = [np.array(arrays[f"waiting/{i}"])]
        return collector

    def summary(self) -> dict[str, Any]:
        """Tensor -> number of its rows, and the root mean square of its values."""
        return {
            tensor: {
                "rows": int(self.seen[i]),
                "rms": float(np.sqrt(np.trace(self.grams[tensor]) / self.seen[i] / len(self.grams[tensor]))),
            }
            for i, tensor in enumerate(self.tensors)
        }
