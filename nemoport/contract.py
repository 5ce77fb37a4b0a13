"""The two encoder contracts: which caches a graph is fed, what it gives of them, and how a stream carries them along.

`nemo`: NeMo's own. The graph takes whole caches and gives whole ones, batch first.
`kv`: the fast one. The graph takes whole caches and gives what the chunk adds behind them, layer by layer and frames
    first. So the caches of a stream are a window that slides over a longer buffer, and are moved only at its end.

A graph tells by its inputs which of them it keeps. That of an offline encoder, which hears an utterance at once, keeps none.

A model with a prompt is fed the slot of its language with every chunk, by either contract. It travels with the caches, so
that no chunk can be run without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.spec import ModelSpec, StreamingSpec

NEMO, KV = "nemo", "kv"
KV_PREFIX = "kv-"  # of a variant's name: kv-int8-dynamic is int8-dynamic of the kv contract
PROMPT = "prompt_index"  # input i64 [B] of a model with a prompt


class Caches(Protocol):
    """Encoder state of a batch of streams. `length`: i64 [B], how many of the left context's frames are filled."""

    length: np.ndarray

    @staticmethod
    def shapes(spec: StreamingSpec, batch: int) -> dict[str, tuple[int, ...]]:
        """Input name -> shape, in the graph's order; all start as zeros, f32 but for the length, which is last."""

    @staticmethod
    def outputs(spec: StreamingSpec) -> tuple[str, ...]:
        """Names in the graph's order, behind `outputs` and `encoded_lengths`."""

    @classmethod
    def initial(cls, spec: StreamingSpec, batch: int) -> Caches:
        """Of `batch` fresh streams."""

    def feeds(self) -> dict[str, np.ndarray]: ...

    def after(self, outputs: Sequence[np.ndarray]) -> Caches:
        """The state after a run that was fed this one and gave `outputs`. Who wants to go on from this one a second time
        needs a deep copy of it."""

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
    names = set(inputs)
    return KvCaches if "cache_len" in names else NemoCaches if "cache_last_channel" in names else NoCaches


def caches_for(spec: ModelSpec, contract: str) -> type[Caches]:
    """Of the graphs that are exported by a contract."""
    return NoCaches if spec.streaming is None else KvCaches if contract == KV else NemoCaches


@dataclass(frozen=True)
class NoCaches:
    """Of an offline encoder: nothing, for so many utterances. length: i64 [B], zeros."""

    length: np.ndarray

    @staticmethod
    def shapes(spec: None, batch: int) -> dict[str, tuple[int, ...]]:
        return {}

    @staticmethod
    def outputs(spec: None) -> tuple[str, ...]:
        return ()

    @classmethod
    def initial(cls, spec: None, batch: int) -> NoCaches:
        return cls(np.zeros(batch, np.int64))

    def feeds(self) -> dict[str, np.ndarray]:
        return {}

    def after(self, outputs: Sequence[np.ndarray]) -> NoCaches:
        return self

    @staticmethod
    def stack(states: Sequence[NoCaches]) -> NoCaches:
        return NoCaches(np.concatenate([s.length for s in states]))

    def rows(self) -> list[NoCaches]:
        return [NoCaches(self.length[i : i + 1]) for i in range(len(self.length))]


@dataclass(frozen=True)
class NemoCaches:
    """channel: f32 [B, layers, C, d], time: f32 [B, layers, d, k - 1], length: i64 [B]."""

    channel: np.ndarray
    time: np.ndarray
    length: np.ndarray

    @staticmethod
    def shapes(spec: StreamingSpec, batch: int) -> dict[str, tuple[int, ...]]:
        return {
            "cache_last_channel": (batch, spec.n_layers, spec.left_context_enc_frames, spec.d_model),
            "cache_last_time": (batch, spec.n_layers, spec.d_model, spec.conv_cache_frames),
            "cache_last_channel_len": (batch,),
        }

    @staticmethod
    def outputs(spec: StreamingSpec) -> tuple[str, ...]:
        return "cache_last_channel_next", "cache_last_time_next", "cache_last_channel_next_len"

    @classmethod
    def initial(cls, spec: StreamingSpec, batch: int) -> NemoCaches:
        channel, time, length = cls.shapes(spec, batch).values()
        return cls(np.zeros(channel, np.float32), np.zeros(time, np.float32), np.zeros(length, np.int64))

    @classmethod
    def of_feeds(cls, feeds: Mapping[str, np.ndarray]) -> NemoCaches:
        """The inverse of `feeds`."""
        return cls(*(feeds[name] for name in ("cache_last_channel", "cache_last_time", "cache_last_channel_len")))

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


def outdated() -> ArtifactError:
    return ArtifactError(
        "An encoder state was used after its stream had gone on without it.",
        expected="the state that the last chunk gave",
        found="an older one, whose frames are no longer kept",
        todo="take a deep copy of a state that is to be continued twice",
    )


class _Series:
    """Frames of every layer in a buffer with room behind them: f32 [layers, frames, B, ...].

    end: how many frames are written; moves: how often they were moved to the front.
    """

    def __init__(self, frames: np.ndarray):
        layers, self.end, *rest = frames.shape
        self.moves = 0
        self.buffer = np.zeros((layers, 2 * self.end, *rest), frames.dtype)  # moved once in `end` frames
        self.buffer[:, : self.end] = frames


@dataclass(frozen=True)
class _Window:
    """The last `size` frames of a series, up to where its holder has come."""

    series: _Series
    start: int
    size: int
    moves: int = 0

    @staticmethod
    def over(frames: np.ndarray) -> _Window:
        """frames: f32 [layers, size, B, ...]."""
        return _Window(_Series(frames), 0, frames.shape[1])

    def view(self) -> np.ndarray:
        if self.moves != self.series.moves:
            raise outdated()
        return self.series.buffer[:, self.start : self.start + self.size]

    def append(self, new: Sequence[np.ndarray]) -> _Window:
        """new: for each layer f32 [T, B, ...]. What another holder has appended behind this window stays as it is."""
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
    """windows: over key and value f32 [layers, C, B, h, d_k] and conv f32 [layers, k - 1, B, d]; length: i64 [B]."""

    windows: tuple[_Window, _Window, _Window]
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
        """The inverse of `feeds`."""
        layers = range(len(feeds) // len(CACHED))
        stacked = (np.stack([feeds[f"cache_{name}_{layer}"] for layer in layers]) for name in CACHED)
        return cls(tuple(map(_Window.over, stacked)), feeds["cache_len"])

    def feeds(self) -> dict[str, np.ndarray]:
        views = zip(CACHED, (window.view() for window in self.windows), strict=True)
        return {f"cache_{name}_{i}": cache for name, view in views for i, cache in enumerate(view)} | {"cache_len": self.length}

    def after(self, outputs: Sequence[np.ndarray]) -> KvCaches:
        windows = tuple(window.append(outputs[i :: len(CACHED)]) for i, window in enumerate(self.windows))
        return KvCaches(windows, np.minimum(self.length + len(outputs[0]), self.windows[0].size))

    @staticmethod
    def stack(states: Sequence[Row]) -> KvCaches:
        """Streams that were one batch already, and all of it, are handed back as they stand: nothing is copied."""
        if (batch := whole_batch(states)) is not None:
            return batch
        windows = tuple(
            _Window.over(np.concatenate([s.batch.windows[i].view()[:, :, s.row : s.row + 1] for s in states], 2))
            for i in range(len(CACHED))
        )
        return KvCaches(windows, np.concatenate([s.length for s in states]))

    def rows(self) -> list[Row]:
        return rows_of(self)


@dataclass(frozen=True)
class Row:
    """One stream of a batch that stays as it is until streams are joined anew."""

    batch: Caches
    row: int

    @property
    def length(self) -> np.ndarray:
        return self.batch.length[self.row : self.row + 1]


def rows_of(batch: Caches) -> list[Row]:
    return [Row(batch, i) for i in range(len(batch.length))]


def whole_batch(rows: Sequence[Row]) -> Caches | None:
    """The batch that `rows_of` split into these; None if they are of several, or not all of one."""
    batch = rows[0].batch
    alike = all(row.batch is batch for row in rows) and [row.row for row in rows] == list(range(len(batch.length)))
    return batch if alike else None


@dataclass(frozen=True)
class Prompted:
    """Caches of streams, one row of them or several, and the prompt slot of each stream: i64 [B]."""

    caches: Caches
    prompt_index: np.ndarray

    @property
    def length(self) -> np.ndarray:
        return self.caches.length

    def feeds(self) -> dict[str, np.ndarray]:
        return {**self.caches.feeds(), PROMPT: self.prompt_index}

    def after(self, outputs: Sequence[np.ndarray]) -> Prompted:
        return Prompted(self.caches.after(outputs), self.prompt_index)

    @staticmethod
    def stack(states: Sequence[Prompted], caches: type[Caches]) -> Prompted:
        """Streams of different languages may share a batch."""
        return Prompted(caches.stack([s.caches for s in states]), np.concatenate([s.prompt_index for s in states]))

    def rows(self) -> list[Prompted]:
        return [Prompted(row, self.prompt_index[i : i + 1]) for i, row in enumerate(self.caches.rows())]
