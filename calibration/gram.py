"""What error feedback needs to see of a tensor: how its channels vary together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class GramCollector:
    """Sums X^T X over every row of every named tensor: f32 [channels, channels] each, whatever the number of rows.

    For the published model's layers that is 3.7 GB.
    """

    settings = {"statistic": "gram"}

    def __init__(self, tensors: Sequence[str]):
        self.tensors = list(tensors)
        self.seen = np.zeros(len(self.tensors), np.int64)
        self.grams: dict[str, np.ndarray] = {}

    def update(self, values: Mapping[str, np.ndarray]) -> None:
        """values: f32 [..., channels] by tensor name, all of them."""
        for index, tensor in enumerate(self.tensors):
            rows = values[tensor].reshape(-1, values[tensor].shape[-1])
            if tensor not in self.grams:
                self.grams[tensor] = np.zeros((rows.shape[1], rows.shape[1]), np.float32)
            self.grams[tensor] += rows.T @ rows
            self.seen[index] += len(rows)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything, for `numpy.savez`; the inverse of `from_arrays`."""
        grams = {f"gram/{i}": self.grams[name] for i, name in enumerate(self.tensors)}
        return {"tensors": np.array(self.tensors), "seen": self.seen, **grams}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> GramCollector:
        collector = GramCollector(arrays["tensors"].tolist())
        collector.seen = np.array(arrays["seen"])
        collector.grams = {name: np.array(arrays[f"gram/{i}"]) for i, name in enumerate(collector.tensors)}
        return collector

    def summary(self) -> dict:
        """tensor -> rows seen, and the root mean square of its values."""
        return {
            tensor: {
                "rows": int(self.seen[i]),
                "rms": float(np.sqrt(np.trace(self.grams[tensor]) / self.seen[i] / len(self.grams[tensor]))),
            }
            for i, tensor in enumerate(self.tensors)
        }
