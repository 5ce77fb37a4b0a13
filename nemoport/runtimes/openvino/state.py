"""Caches as the state of OpenVINO's infer requests: each stream has one of its own, as in an application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemoport.caches import stale_state_error
from nemoport.errors import UsageError


class Holder:
    """An infer request that keeps the caches of one stream. chunks: how many it has run."""

    def __init__(self, compiled: Any):
        """compiled: openvino.CompiledModel."""
        self.compiled, self.request, self.chunks = compiled, compiled.create_infer_request(), 0

    def __deepcopy__(self, memo: dict) -> Holder:
        import openvino

        other = Holder(self.compiled)
        if self.chunks:
            values = {state.name: state.state.data.copy() for state in self.request.query_state()}
            for state in other.request.query_state():
                state.state = openvino.Tensor(values[state.name])
        other.chunks = self.chunks
        return other


@dataclass(frozen=True)
class StateCaches:
    """Encoder state of a batch of streams, kept by their infer requests, which keep no older caches.

    chunks: how many chunks each holder had run when this state was made. A state is stale once its holder has run more.
    """

    holders: tuple[Holder, ...]
    chunks: tuple[int, ...]

    @staticmethod
    def outputs(spec: object) -> tuple[str, ...]:
        """Returns the outputs that hold caches: none."""
        return ()

    @staticmethod
    def of(holders: Sequence[Holder]) -> StateCaches:
        """Returns the current state of the holders."""
        return StateCaches(tuple(holders), tuple(holder.chunks for holder in holders))

    @staticmethod
    def initial(compiled: Any, batch: int) -> StateCaches:
        """Returns the state of `batch` new streams. compiled: openvino.CompiledModel."""
        return StateCaches.of([Holder(compiled) for _ in range(batch)])

    def requests(self, streams: int) -> list[Any]:
        """Returns the infer requests that run the next chunk of so many streams. Raises UsageError for another number of streams
        than the state has, ArtifactError if one of them has run a chunk since."""
        if streams != len(self.holders):
            raise UsageError(
                "A chunk has another number of streams than the encoder state.",
                expected=str(len(self.holders)),
                found=str(streams),
                todo="join the states of those that are fed with `stack`",
            )
        for holder, chunks in zip(self.holders, self.chunks, strict=True):
            if holder.chunks != chunks:
                raise stale_state_error()
            holder.chunks += 1
        return [holder.request for holder in self.holders]

    def feeds(self) -> dict[str, np.ndarray]:
        """Returns the inputs that hold caches: none."""
        return {}

    def advance(self, outputs: Sequence[np.ndarray]) -> StateCaches:
        """Returns the state after the last run."""
        return StateCaches.of(self.holders)

    @staticmethod
    def stack(states: Sequence[StateCaches]) -> StateCaches:
        """Joins streams into a batch."""
        return StateCaches(sum((s.holders for s in states), ()), sum((s.chunks for s in states), ()))

    def rows(self) -> list[StateCaches]:
        """Splits the batch into streams."""
        return [StateCaches((h,), (n,)) for h, n in zip(self.holders, self.chunks, strict=True)]
