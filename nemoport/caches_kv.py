"""The `kv` cache layout: projected keys and values and the convolutions' inputs, as windows over longer buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nemoport.caches import Row, rows_of, stale_state_error, whole_batch
from nemoport.spec import StreamingSpec


class _Series:
    """A buffer of every layer's frames with room behind them: f32 [layers, frames, B, ...].

    end: frames that are written; moves: how often they were moved to the front of the buffer.
    """

    def __init__(self, frames: np.ndarray):
        layers, self.end, *rest = frames.shape
        self.moves = 0
        self.buffer = np.zeros((layers, 2 * self.end, *rest), frames.dtype)  # moved once in `end` frames
        self.buffer[:, : self.end] = frames


@dataclass(frozen=True)
class _Window:
    """The `size` frames of a series that one encoder state consists of.

    moves: the series' `moves` when the window was made; where they differ, the frames have been overwritten.
    """

    series: _Series
    start: int
    size: int
    moves: int = 0

    @staticmethod
    def over(frames: np.ndarray) -> _Window:
        """Returns a window over a new series. frames: f32 [layers, size, B, ...]."""
        return _Window(_Series(frames), 0, frames.shape[1])

    def view(self) -> np.ndarray:
        """Returns the frames, f32 [layers, size, B, ...], without a copy. Raises ArtifactError if they are overwritten."""
        if self.moves != self.series.moves:
            raise stale_state_error()
        return self.series.buffer[:, self.start : self.start + self.size]

    def append(self, new: Sequence[np.ndarray]) -> _Window:
        """Returns the window that lies T frames later, after `new` is written behind this one.

        new: for each layer f32 [T, B, ...]. Frames that another state has written behind this window are not overwritten: the
        new window is then over a series of its own.
        """
        series, start, moves = self.series, self.start, self.moves
        if series.end != start + self.size:
            series, start, moves = _Series(self.view()), 0, 0
        kept = new[0][-self.size :]
        if start + self.size + len(kept) > series.buffer.shape[1]:
            for layer, frames in zip(series.buffer, self.view(), strict=True):
                layer[: self.size] = frames
            series.moves, start, moves = moves + 1, 0, moves + 1
        stop = start + self.size
        for layer, frames in zip(series.buffer, new, strict=True):
            layer[stop : stop + len(kept)] = frames[-self.size :]
        series.end = stop + len(kept)
        return _Window(series, start + len(kept), self.size, moves)


CACHED = ("key", "value", "conv")  # of each layer


@dataclass(frozen=True)
class KvCaches:
    """Caches in the `kv` layout.

    windows: over key and value f32 [layers, C, B, h, d_k] and conv f32 [layers, k - 1, B, d]; length: i64 [B], frames of the
    left context that are filled.
    """

    windows: tuple[_Window, ...]
    length: np.ndarray

    @staticmethod
    def shapes(spec: StreamingSpec, batch: int) -> dict[str, tuple[int, ...]]:
        heads = (spec.left_context_enc_frames, batch, spec.n_heads, spec.d_model // spec.n_heads)
        of_layer = dict(zip(CACHED, (heads, heads, (spec.conv_cache_frames, batch, spec.d_model)), strict=True))
        caches = {f"cache_{name}_{layer}": of_layer[name] for layer in range(spec.n_layers) for name in CACHED}
        return caches | {"cache_len": (batch,)}

    @staticmethod
    def outputs(spec: StreamingSpec) -> tuple[str, ...]:
        return tuple(f"{name}_new_{layer}" for layer in range(spec.n_layers) for name in CACHED)

    @classmethod
    def initial(cls, spec: StreamingSpec, batch: int) -> KvCaches:
        shapes = cls.shapes(spec, batch)
        windows = (np.zeros((spec.n_layers, *shapes[f"cache_{name}_0"]), np.float32) for name in CACHED)
        return cls(tuple(map(_Window.over, windows)), np.zeros(batch, np.int64))

    @classmethod
    def of_feeds(cls, feeds: Mapping[str, np.ndarray]) -> KvCaches:
        """Returns the caches whose `feeds` are these; the inverse of `feeds`."""
        layers = range(len(feeds) // len(CACHED))
        stacked = (np.stack([feeds[f"cache_{name}_{layer}"] for layer in layers]) for name in CACHED)
        return cls(tuple(map(_Window.over, stacked)), feeds["cache_len"])

    def feeds(self) -> dict[str, np.ndarray]:
        views = zip(CACHED, (window.view() for window in self.windows), strict=True)
        return {f"cache_{name}_{i}": cache for name, view in views for i, cache in enumerate(view)} | {"cache_len": self.length}

    def advance(self, outputs: Sequence[np.ndarray]) -> KvCaches:
        windows = tuple(window.append(outputs[i :: len(CACHED)]) for i, window in enumerate(self.windows))
        return KvCaches(windows, np.minimum(self.length + len(outputs[0]), self.windows[0].size))

    @staticmethod
    def stack(states: Sequence[Row]) -> KvCaches:
        """Joins streams into a batch. Streams that are all of one batch, in its order, are that batch: nothing is copied."""
        if (batch := whole_batch(states)) is not None:
            return batch
        windows = tuple(
            _Window.over(np.concatenate([s.batch.windows[i].view()[:, :, s.row : s.row + 1] for s in states], 2))
            for i in range(len(CACHED))
        )
        return KvCaches(windows, np.concatenate([s.length for s in states]))

    def rows(self) -> list[Row]:
        return rows_of(self)
