"""Encoder state of streams, in either cache layout: the inputs that a graph is fed, and their update after each chunk.

`nemo`: NeMo's own layout. The graph takes whole caches and returns whole ones, batch first.
`kv`: the fast one (caches_kv.py). The graph takes whole caches and returns what the chunk adds behind them, layer by layer and
    frames first. So the caches of a stream are a window that slides over a longer buffer, and are moved only at its end.

An offline encoder, which takes a whole utterance at once, keeps no caches.

A model with a prompt is fed the slot of its language with every chunk, in either layout. The slot travels with the caches, so
that no chunk can be run without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nemoport.buffered import ATT_CONTEXT, ChunkContext
from nemoport.errors import ArtifactError
from nemoport.spec import StreamingSpec

PROMPT = "prompt_index"  # input i64 [B] of a model with a prompt


class Caches(Protocol):
    """Encoder state of a batch of streams, in one layout.

    spec: StreamingSpec of the encoder; None for an offline one.
    """

    @property
    def length(self) -> np.ndarray:
        """i64 [B], how many of the left context's frames are filled."""
        ...

    @staticmethod
    def shapes(spec: Any, batch: int) -> dict[str, tuple[int, ...]]:
        """Returns input name -> shape, in the graph's order; all start as zeros, f32 but for the length, i64, which is last."""
        ...

    @staticmethod
    def outputs(spec: Any) -> tuple[str, ...]:
        """Returns the names of the graph's outputs behind `outputs` and `encoded_lengths`, in its order."""
        ...

    @classmethod
    def initial(cls, spec: Any, batch: int) -> Caches:
        """Returns the caches of `batch` new streams."""
        ...

    @staticmethod
    def stack(states: Sequence[Any]) -> Caches:
        """Joins streams that `rows` returned, from one batch or several, into one batch."""
        ...

    def feeds(self) -> dict[str, Any]:
        """Returns input name -> array."""
        ...

    def advance(self, outputs: Sequence[Any]) -> Caches:
        """Returns the state after a run that was fed this one and returned `outputs`. To continue from this one a second time,
        take a deep copy of it first."""
        ...

    def rows(self) -> Sequence[Any]:
        """Splits the batch into streams, in a form that `stack` takes."""
        ...


class CacheFactory(Protocol):
    """Makes and joins encoder states for a session: a class of `Caches`, or an object that keeps them elsewhere, such as the
    `DeviceMemory` of runtimes/onnxruntime. The methods are those of `Caches`."""

    def outputs(self, spec: Any, /) -> tuple[str, ...]: ...

    def initial(self, spec: Any, batch: int, /) -> Any: ...

    def stack(self, states: Sequence[Any], /) -> Any: ...


@dataclass(frozen=True)
class NoCaches:
    """State of an offline encoder, which keeps no caches. length: i64 [B], a zero for each utterance; context: the window of a
    buffered stream, the same for all of a batch."""

    length: np.ndarray
    context: ChunkContext | None = None

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
        return {} if self.context is None else {ATT_CONTEXT: np.array(self.context, np.int64)}

    def advance(self, outputs: Sequence[np.ndarray]) -> NoCaches:
        return self

    @staticmethod
    def stack(states: Sequence[NoCaches]) -> NoCaches:
        return NoCaches(np.concatenate([s.length for s in states]), states[0].context)

    def rows(self) -> list[NoCaches]:
        return [NoCaches(self.length[i : i + 1], self.context) for i in range(len(self.length))]


@dataclass(frozen=True)
class NemoCaches:
    """Caches in the `nemo` layout. channel: f32 [B, layers, C, d], the layers' inputs; time: f32 [B, layers, d, k - 1], the
    convolutions' inputs; length: i64 [B], frames of `channel` that are filled, counted from its end."""

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
        """Returns the caches whose `feeds` are these; the inverse of `feeds`."""
        return cls(*(feeds[name] for name in ("cache_last_channel", "cache_last_time", "cache_last_channel_len")))

    def feeds(self) -> dict[str, np.ndarray]:
        return {
            "cache_last_channel": self.channel,
            "cache_last_time": self.time,
            "cache_last_channel_len": self.length,
        }

    def advance(self, outputs: Sequence[np.ndarray]) -> NemoCaches:
        return NemoCaches(*outputs)

    @staticmethod
    def stack(states: Sequence[NemoCaches]) -> NemoCaches:
        if len(states) == 1:
            return states[0]
        return NemoCaches(*(np.concatenate([getattr(s, f) for s in states]) for f in ("channel", "time", "length")))

    def rows(self) -> list[NemoCaches]:
        parts = (self.channel, self.time, self.length)
        return [NemoCaches(*(part[i : i + 1] for part in parts)) for i in range(len(self.length))]


def stale_state_error() -> ArtifactError:
    """Returns the error for a state that was continued before and whose arrays now hold later frames."""
    return ArtifactError(
        "An encoder state was used after its stream had gone on without it.",
        expected="the state that the last chunk returned",
        found="an older one, whose frames are no longer kept",
        todo="take a deep copy of a state that is to be continued twice",
    )


@dataclass(frozen=True)
class Row:
    """One stream of a batch. The batch stays whole in memory until its streams are joined with others."""

    batch: Any  # the caches of all streams of the batch
    row: int

    @property
    def length(self) -> np.ndarray:
        return self.batch.length[self.row : self.row + 1]


def rows_of(batch: Any) -> list[Row]:
    """Splits the caches of a batch into its streams, without a copy."""
    return [Row(batch, i) for i in range(len(batch.length))]


def whole_batch(rows: Sequence[Row]) -> Any:
    """Returns the batch that `rows_of` split into these rows; None if they are from several batches, or not all of one."""
    batch = rows[0].batch
    alike = all(row.batch is batch for row in rows) and [row.row for row in rows] == list(range(len(batch.length)))
    return batch if alike else None


@dataclass(frozen=True)
class PromptedState:
    """Caches of streams, one row of them or several, and the prompt slot of each stream: i64 [B]."""

    caches: Any  # made by a CacheFactory, or one row of them
    prompt_index: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """i64 [B], as in `Caches`."""
        return self.caches.length

    def feeds(self) -> dict[str, Any]:
        return {**self.caches.feeds(), PROMPT: self.prompt_index}

    def advance(self, outputs: Sequence[Any]) -> PromptedState:
        return PromptedState(self.caches.advance(outputs), self.prompt_index)

    @staticmethod
    def stack(states: Sequence[PromptedState], caches: CacheFactory) -> PromptedState:
        """Joins streams, whose languages may differ, into a batch. caches: joins their caches."""
        return PromptedState(caches.stack([s.caches for s in states]), np.concatenate([s.prompt_index for s in states]))

    def rows(self) -> list[PromptedState]:
        return [PromptedState(row, self.prompt_index[i : i + 1]) for i, row in enumerate(self.caches.rows())]
