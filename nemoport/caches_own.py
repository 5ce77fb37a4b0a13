"""Encoder states whose streams keep their caches in arrays of their own, for batches that have other members with each chunk.

`NemoCaches` and `KvCaches` (caches.py, caches_kv.py) let the streams of a batch share its arrays. That costs nothing while the
same streams stay together, but a stream that waits holds the caches of all the others, and joining streams anew allocates twice
what they hold. Here a chunk copies each stream's caches into arrays that a thread uses again and again, and only what the chunk
adds back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemoport.caches import Caches, NemoCaches
from nemoport.caches_kv import CACHED, KvCaches
from nemoport.spec import StreamingSpec


class _Ring:
    """The last frames of every layer of one stream: f32 [layers, frames, ...], of which the one at `first` is the oldest."""

    def __init__(self, layers: int, frames: int, *rest: int):
        self._frames, self._first = np.zeros((layers, frames, *rest), np.float32), 0

    def copy_to(self, target: np.ndarray) -> None:
        """Writes the frames, oldest first, to f32 [layers, frames, ...]."""
        behind = self._frames.shape[1] - self._first
        target[:, :behind] = self._frames[:, self._first :]
        target[:, behind:] = self._frames[:, : self._first]

    def append(self, layers: Sequence[np.ndarray]) -> None:
        """Takes the frames that follow. layers: of each f32 [T, ...]."""
        size = self._frames.shape[1]
        for ring, frames in zip(self._frames, layers, strict=True):
            frames = frames[-size:]
            behind = min(size - self._first, len(frames))
            ring[self._first : self._first + behind] = frames[:behind]
            ring[: len(frames) - behind] = frames[behind:]
        self._first = (self._first + min(len(layers[0]), size)) % size


@dataclass
class OwnRow:
    """The state of one stream. parts: what the layout keeps; length: i64 [1], frames of the left context that are filled."""

    parts: tuple[Any, ...]
    length: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """Streams that are encoded together. See `nemoport.caches.Caches`."""

    streams: Sequence[OwnRow]
    factory: OwnCaches

    @property
    def length(self) -> np.ndarray:
        return np.concatenate([stream.length for stream in self.streams])

    def feeds(self) -> dict[str, np.ndarray]:
        """Returns input name -> array. The arrays are the thread's own, and hold until its next call."""
        return self.factory.gather(self.streams, self.length)

    def advance(self, outputs: Sequence[np.ndarray]) -> _Batch:
        self.factory.scatter(self.streams, outputs)
        return self

    def rows(self) -> Sequence[OwnRow]:
        return self.streams


class OwnCaches:
    """A `nemoport.caches.CacheFactory` for either layout. A state can be continued once: its arrays are those of the next one."""

    def __init__(self, layout: type[Caches], spec: StreamingSpec):
        """layout: NemoCaches or KvCaches."""
        self.gather, self.scatter = (self._gather_kv, self._add_kv) if layout is KvCaches else (self._gather, self._replace)
        self._layout, self._spec, self._local = layout, spec, threading.local()

    def outputs(self, spec: StreamingSpec) -> tuple[str, ...]:
        return self._layout.outputs(spec)

    def initial(self, spec: StreamingSpec, batch: int) -> _Batch:
        return _Batch([OwnRow(self._new_parts(), np.zeros(1, np.int64)) for _ in range(batch)], self)

    def stack(self, states: Sequence[OwnRow]) -> _Batch:
        return _Batch(states, self)

    def _new_parts(self) -> tuple[Any, ...]:
        shapes = list(self._layout.shapes(self._spec, 1).values())
        if self._layout is NemoCaches:
            return tuple(np.zeros(shape[1:], np.float32) for shape in shapes[:2])
        frames_and_rest = ((frames, *rest) for frames, _, *rest in shapes[: len(CACHED)])
        return tuple(_Ring(self._spec.n_layers, *shape) for shape in frames_and_rest)

    def _scratch(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns f32 of a shape, of undefined content, in memory that this thread keeps."""
        kept: dict[str, np.ndarray] = self._local.__dict__
        size = int(np.prod(shape))
        if name not in kept or kept[name].size < size:
            kept[name] = np.empty(size, np.float32)
        return kept[name][:size].reshape(shape)

    def _gather(self, streams: Sequence[OwnRow], length: np.ndarray) -> dict[str, np.ndarray]:
        (channel, of_channel), (time, of_time), (count, _) = self._layout.shapes(self._spec, len(streams)).items()
        feeds = {channel: self._scratch(channel, of_channel), time: self._scratch(time, of_time), count: length}
        for row, stream in enumerate(streams):
            feeds[channel][row], feeds[time][row] = stream.parts
        return feeds

    def _replace(self, streams: Sequence[OwnRow], outputs: Sequence[np.ndarray]) -> None:
        *caches, lengths = outputs
        for row, stream in enumerate(streams):
            for kept, cache in zip(stream.parts, caches, strict=True):
                kept[...] = cache[row]
            stream.length = lengths[row : row + 1]

    def _gather_kv(self, streams: Sequence[OwnRow], length: np.ndarray) -> dict[str, np.ndarray]:
        feeds: dict[str, np.ndarray] = {}
        shapes = list(self._layout.shapes(self._spec, len(streams)).values())[: len(CACHED)]
        wholes = [self._scratch(name, (self._spec.n_layers, *shape)) for name, shape in zip(CACHED, shapes, strict=True)]
        for part, whole in enumerate(wholes):
            for row, stream in enumerate(streams):
                stream.parts[part].copy_to(whole[:, :, row])
        for layer in range(self._spec.n_layers):
            feeds |= {f"cache_{name}_{layer}": whole[layer] for name, whole in zip(CACHED, wholes, strict=True)}
        return feeds | {"cache_len": length}

    def _add_kv(self, streams: Sequence[OwnRow], outputs: Sequence[np.ndarray]) -> None:
        for row, stream in enumerate(streams):
            for part, ring in enumerate(stream.parts):
                ring.append([layer[:, row] for layer in outputs[part :: len(CACHED)]])
            stream.length = np.minimum(stream.length + len(outputs[0]), self._spec.left_context_enc_frames)
