"""What decoders and the chunk loop know of a runtime: a session that runs an artifact's graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from nemoport.spec import ModelSpec

EncoderState = Any  # opaque to the decoder and the chunk loop: whatever the runtime keeps its caches in


class Session(Protocol):
    """A runtime that can run an artifact. Batch first.

    `step` joins what the architecture calls predict and join: a fused decoder graph runs both at once, and given all
    frames of a chunk it needs one call per token instead of one per frame.
    """

    spec: ModelSpec

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> EncoderState:
        """Encoder state of `batch` fresh streams. prompts: the slot of each stream's language, of a model that has
        `spec.prompt`, and no other's. Raises UsageError."""

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState) -> tuple[np.ndarray, np.ndarray, EncoderState]:
        """mel: f32 [B, n_mels, T], lengths: i64 [B] -> (frames f32 [B, T', d_model], frame lengths i64 [B], state).

        Of a chunk, or by an offline encoder of whole utterances, whose state is empty."""

    def step(
        self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """frames: f32 [B, T, d_model], tokens: i32 [B] (the last emitted, blank at first), state before those tokens
        (two f32 [layers, B, hidden]) -> (scores f32 [B, T, spec.decoding.n_scores], state after those tokens)."""

    def stack(self, states: list[EncoderState]) -> EncoderState:
        """Joins streams, as `unstack` gave them, into a batch that `encode` takes; one stream is a batch too."""

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        """Splits a batch into streams; the inverse of `stack`. A state is good for one continuation: who wants two
        takes a deep copy."""
