"""Greedy transducer decoding, once, for every runtime: it knows the `Session` protocol and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nemoport.spec import DecodingSpec, ModelSpec

EncoderState = Any  # opaque to the decoder and the chunk loop: whatever the runtime keeps its caches in


class Session(Protocol):
    """A runtime that can run an artifact. Batch first.

    `step` joins what the architecture calls predict and join: a fused decoder graph runs both at once, and given all
    frames of a chunk it needs one call per token instead of one per frame.
    """

    spec: ModelSpec

    def initial_state(self, batch: int) -> EncoderState:
        """Encoder state of `batch` fresh streams."""

    def encode(
        self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState
    ) -> tuple[np.ndarray, np.ndarray, EncoderState]:
        """mel: f32 [B, n_mels, T], lengths: i64 [B] -> (frames f32 [B, T', d_model], frame lengths i64 [B], state)."""

    def step(
        self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """frames: f32 [B, T, d_model], tokens: i32 [B] (the last emitted, blank at first), state before those tokens
        (two f32 [layers, B, hidden]) -> (logits f32 [B, T, vocab + 1], state after those tokens)."""

    def stack(self, states: list[EncoderState]) -> EncoderState:
        """Joins streams, as `unstack` gave them, into a batch that `encode` takes; one stream is a batch too."""

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        """Splits a batch into streams; the inverse of `stack`. A state is good for one continuation: who wants two
        takes a deep copy."""


@dataclass
class GreedyState:
    """Decoder state of one stream. The prediction network has not yet consumed `token`."""

    token: int
    hidden: np.ndarray  # f32 [layers, pred_hidden], before `token`
    cell: np.ndarray  # f32 [layers, pred_hidden], before `token`
    frame: int = 0  # encoder frames decoded so far: the time base of token times
    tokens: list[int] = field(default_factory=list)
    token_frames: list[int] = field(default_factory=list)

    @staticmethod
    def initial(spec: DecodingSpec) -> GreedyState:
        """Blank is the first target: NeMo starts from a zero embedding, and the blank row of the table is zero."""
        zeros = np.zeros((spec.pred_layers, spec.pred_hidden), np.float32)
        return GreedyState(token=spec.blank_id, hidden=zeros, cell=zeros.copy())


def greedy_rnnt(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[GreedyState]) -> None:
    """Decodes one chunk of a batch of streams and advances `states` in place.

    frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream. A stream stays on a frame until it
    yields blank or `max_symbols_per_frame` tokens (NeMo's `greedy` and `greedy_batch` agree on this).
    """
    spec = session.spec.decoding
    position = [0] * len(states)  # frame that each stream looks at
    symbols = [0] * len(states)  # tokens emitted on that frame
    active = [b for b in range(len(states)) if lengths[b] > 0]
    while active:
        tokens = np.array([states[b].token for b in active], np.int32)
        hidden = np.stack([states[b].hidden for b in active], 1)
        cell = np.stack([states[b].cell for b in active], 1)
        first = min(position[b] for b in active)
        logits, (next_hidden, next_cell) = session.step(frames[active, first:], tokens, (hidden, cell))
        best = logits.argmax(-1)
        still = []
        for row, b in enumerate(active):
            state = states[b]
            ahead = best[row, position[b] - first : int(lengths[b]) - first]
            spoken = np.flatnonzero(ahead != spec.blank_id)
            if not len(spoken):
                continue
            if spoken[0]:
                position[b] += int(spoken[0])
                symbols[b] = 0
            state.token = int(ahead[spoken[0]])
            state.hidden, state.cell = next_hidden[:, row], next_cell[:, row]
            state.tokens.append(state.token)
            state.token_frames.append(state.frame + position[b])
            symbols[b] += 1
            if symbols[b] == spec.max_symbols_per_frame:
                position[b] += 1
                symbols[b] = 0
            if position[b] < lengths[b]:
                still.append(b)
        active = still
    for b, state in enumerate(states):
        state.frame += int(lengths[b])
