"""The two encoder contracts: which caches a graph is fed, what it gives of them, and how a stream carries them along.

`nemo`: NeMo's own. The graph takes whole caches and gives whole ones, batch first.
`kv`: the fast one. The graph takes whole caches and gives what the chunk adds behind them, frames first. So the caches
    of a stream are a window that slides over a longer buffer; it is moved back only where the buffer ends.

A graph tells by its inputs which of them it keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from nemoport.spec import StreamingSpec

NEMO, KV = "nemo", "kv"
KV_PREFIX = "kv-"  # of a variant's name: kv-int8-dynamic is int8-dynamic of the kv contract


class Caches(Protocol):
    """Encoder state of a batch of streams. `length`: i64 [B], how many of the left context's frames are filled."""

    contract: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]  # of the graph, behind `outputs` and `encoded_lengths`
    length: np.ndarray

    @staticmethod
    def shapes(spec: StreamingSpec, batch: int) -> dict[str, tuple[int, ...]]:
        """Input name -> shape; all start as zeros, f32 but for the length."""

    @classmethod
    def initial(cls, spec: StreamingSpec, batch: int) -> Caches:
        """Of `batch` fresh streams."""

    def feeds(self) -> dict[str, np.ndarray]: ...

    def after(self, outputs: Sequence[np.ndarray]) -> Caches:
        """The state after a run that was fed this one and gave `outputs`. This one stays as it is."""

    @staticmethod
    def stack(states: Sequence[Caches]) -> Caches:
        """Joins what `rows` gave, of one batch or of several, into one batch."""

    def rows(self) -> list[Caches]:
        """Splits into streams."""


def variant_of(contract: str, precision: str) -> str:
    return f"{KV_PREFIX}{precision}" if contract == KV else precision


def contract_of(variant: str) -> str:
    return KV if variant.startswith(KV_PREFIX) else NEMO


def precision_of(variant: str) -> str:
    return variant.removeprefix(KV_PREFIX)


def caches_of(inputs: Iterable[str]) -> type[Caches]:
    """inputs: names of the graph's."""
    return KvCaches if "cache_key" in inputs else NemoCaches


@dataclass(frozen=True)
class NemoCaches:
    """channel: f32 [B, layers, C, d], time: f32 [B, layers, d, k - 1], length: i64 [B]."""

    channel: np.ndarray
    time: np.ndarray
    length: np.ndarray

    contract: ClassVar[str] = NEMO
    outputs: ClassVar[tuple[str, ...]] = (
        "cache_last_channel_next", "cache_last_time_next", "cache_last_channel_next_len"
    )  # fmt: skip

    @staticmethod
    def shapes(spec: StreamingSpec, batch: int) -> dict[str, tuple[int, ...]]:
        return {
            "cache_last_channel": (batch, spec.n_layers, spec.left_context_enc_frames, spec.d_model),
            "cache_last_time": (batch, spec.n_layers, spec.d_model, spec.conv_cache_frames),
            "cache_last_channel_len": (batch,),
        }

    @classmethod
    def initial(cls, spec: StreamingSpec, batch: int) -> NemoCaches:
        channel, time, length = cls.shapes(spec, batch).values()
        return cls(np.zeros(channel, np.float32), np.zeros(time, np.float32), np.zeros(length, np.int64))

    def feeds(self) -> dict[str, np.ndarray]:
        return {
            "cache_last_channel": self.channel,
            "cache_last_time": self.time,
            "cache_last_channel_len": self.length,
        }

    def after(self, outputs: Sequence[np.ndarray]) -> NemoCaches:
        return NemoCaches(*outputs)

    @staticmethod
    def stack(states: Sequence[NemoCaches]) -> NemoCaches:
        if len(states) == 1:
            return states[0]
        return NemoCaches(*(np.concatenate([getattr(s, f) for s in states]) for f in ("channel", "time", "length")))

    def rows(self) -> list[NemoCaches]:
        parts = (self.channel, self.time, self.length)
        return [NemoCaches(*(part[i : i + 1] for part in parts)) for i in range(len(self.length))]


class _Series:
    """Frames in a buffer with room behind them. `end`: how many of its frames are written."""

    def __init__(self, frames: np.ndarray, room: int):
        self.end = len(frames)
        self.buffer = np.empty((self.end + room, *frames.shape[1:]), frames.dtype)
        self.buffer[: self.end] = frames


@dataclass(frozen=True)
class _Window:
    """The last `size` frames of a series, up to where its holder has come."""

    series: _Series
    start: int
    size: int

    @staticmethod
    def over(frames: np.ndarray) -> _Window:
        """frames: [size, ...]. A buffer twice as long is moved once in `size` frames."""
        return _Window(_Series(frames, len(frames)), 0, len(frames))

    def view(self) -> np.ndarray:
        return self.series.buffer[self.start : self.start + self.size]

    def append(self, new: np.ndarray) -> _Window:
        """This window stays as it is: what another holder has appended already is not overwritten."""
        series, start, stop = self.series, self.start, self.start + self.size
        if series.end != stop or stop + len(new) > len(series.buffer):
            series, start, stop = _Series(self.view(), max(self.size, len(new))), 0, self.size
        series.buffer[stop : stop + len(new)] = new
        series.end = stop + len(new)
        return _Window(series, start + len(new), self.size)


@dataclass(frozen=True)
class KvCaches:
    """windows: over key and value f32 [C, layers, B, d] and conv f32 [k - 1, layers, B, d]; length: i64 [B]."""

    windows: tuple[_Window, _Window, _Window]
    length: np.ndarray

    contract: ClassVar[str] = KV
    outputs: ClassVar[tuple[str, ...]] = ("key_new", "value_new", "conv_new")

    @staticmethod
    def shapes(spec: StreamingSpec, batch: int) -> dict[str, tuple[int, ...]]:
        frames = (spec.left_context_enc_frames, spec.n_layers, batch, spec.d_model)
        return {
            "cache_key": frames,
            "cache_value": frames,
            "cache_conv": (spec.conv_cache_frames, *frames[1:]),
            "cache_len": (batch,),
        }

    @classmethod
    def initial(cls, spec: StreamingSpec, batch: int) -> KvCaches:
        *frames, length = cls.shapes(spec, batch).values()
        return cls(tuple(_Window.over(np.zeros(f, np.float32)) for f in frames), np.zeros(length, np.int64))

    def feeds(self) -> dict[str, np.ndarray]:
        key, value, conv = (window.view() for window in self.windows)
        return {"cache_key": key, "cache_value": value, "cache_conv": conv, "cache_len": self.length}

    def after(self, outputs: Sequence[np.ndarray]) -> KvCaches:
        windows = tuple(window.append(new) for window, new in zip(self.windows, outputs, strict=True))
        return KvCaches(windows, np.minimum(self.length + len(outputs[0]), self.windows[0].size))

    @staticmethod
    def stack(states: Sequence[KvRow]) -> KvCaches:
        """Streams that were one batch already, and all of it, are handed back as they stand: nothing is copied."""
        batch = states[0].batch
        if [s.row for s in states if s.batch is batch] == list(range(len(batch.length))) and len(states) == len(batch.length):
            return batch
        windows = tuple(
            _Window.over(np.concatenate([s.batch.windows[i].view()[:, :, s.row : s.row + 1] for s in states], 2))
            for i in range(len(batch.windows))
        )
        return KvCaches(windows, np.concatenate([s.length for s in states]))

    def rows(self) -> list[KvRow]:
        return [KvRow(self, i) for i in range(len(self.length))]


@dataclass(frozen=True)
class KvRow:
    """One stream of a batch, to be joined with others by `KvCaches.stack`."""

    batch: KvCaches
    row: int

    @property
    def length(self) -> np.ndarray:
        return self.batch.length[self.row : self.row + 1]
