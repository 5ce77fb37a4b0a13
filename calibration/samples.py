"""What smoothing and weight rounding need to see of a tensor: the largest magnitude of each channel, and some rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ROWS = 256  # a tensor; 0.4 GB for the published model's


class SampleCollector:
    """Sees every row of every named tensor; keeps `ROWS` of them, drawn evenly from all, whatever their number.

    The draw (algorithm R, Vitter 1985) is a function of the rows' number and order alone, so that a run that was
    interrupted gives the same as one that was not.
    """

    settings = {"rows": ROWS}

    def __init__(self, tensors: Sequence[str]):
        self.tensors = list(tensors)
        self.seen = np.zeros(len(self.tensors), np.int64)
        self.max_abs: dict[str, np.ndarray] = {}  # f32 [channels]
        self.kept: dict[str, np.ndarray] = {}  # f32 [ROWS, channels]; the first `seen` of them are filled

    def update(self, values: Mapping[str, np.ndarray]) -> None:
        """values: f32 [..., channels] by tensor name, all of them."""
        for index, tensor in enumerate(self.tensors):
            rows = values[tensor].reshape(-1, values[tensor].shape[-1])
            largest = np.abs(rows).max(0)
            self.max_abs[tensor] = np.maximum(self.max_abs.get(tensor, largest), largest)
            kept = self.kept.setdefault(tensor, np.zeros((ROWS, rows.shape[1]), np.float32))
            positions = self.seen[index] + np.arange(len(rows))
            draws = np.random.default_rng([index, int(self.seen[index])]).integers(0, positions + 1)
            places = np.where(positions < ROWS, positions, draws)
            inside = places < ROWS
            kept[places[inside]] = rows[inside]
            self.seen[index] += len(rows)

    def rows(self, tensor: str) -> np.ndarray:
        """f32 [n, channels], n at most `ROWS`."""
        return self.kept[tensor][: self.seen[self.tensors.index(tensor)]]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything, for `numpy.savez`; the inverse of `from_arrays`."""
        arrays = {f"max_abs/{i}": self.max_abs[name] for i, name in enumerate(self.tensors)}
        arrays |= {f"kept/{i}": self.kept[name] for i, name in enumerate(self.tensors)}
        return {"tensors": np.array(self.tensors), "seen": self.seen, **arrays}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> SampleCollector:
        collector = SampleCollector(arrays["tensors"].tolist())
        collector.seen = np.array(arrays["seen"])
        for i, name in enumerate(collector.tensors):
            collector.max_abs[name] = np.array(arrays[f"max_abs/{i}"])
            collector.kept[name] = np.array(arrays[f"kept/{i}"])
        return collector

    def summary(self) -> dict:
        """tensor -> rows seen, and how far its largest channel stands out of its median one."""
        return {
            tensor: {
                "rows": int(self.seen[i]),
                "largest": float(self.max_abs[tensor].max()),
                "median_channel": float(np.median(self.max_abs[tensor])),
            }
            for i, tensor in enumerate(self.tensors)
        }
