"""The interface between decoding and a runtime: a session runs an artifact's graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from nemoport.buffered import ChunkContext
from nemoport.errors import ArtifactError, first_line
from nemoport.spec import Lookahead, ModelSpec
from nemoport.text import clipped

# Caches of streams, in a type of the session's own. It is opaque to the decoder and the chunk loop, which only pass it from one
# call of a session to the next, so no common type is stated. A batch has `feeds()`, what it holds by name; of a model with a
# prompt, batch and stream are dataclasses with a field `prompt_index`, i64 [B].
EncoderState = Any


class Session(Protocol):
    """A runtime that has opened an artifact. All arrays are batch first.

    `step` joins what the architecture calls predict and join: a fused decoder graph runs both at once, and given all
    frames of a chunk it needs one call per token instead of one per frame.
    """

    spec: ModelSpec

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> EncoderState:
        """Returns the encoder state of `batch` new streams. prompts: the slot of each stream's language, for a model that has
        `spec.prompt`; empty for any other. Raises UsageError for prompts that the model cannot have."""
        ...

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState) -> tuple[np.ndarray, np.ndarray, EncoderState]:
        """Encodes one chunk of each stream, or with an offline encoder, whose state is empty, whole utterances.

        mel: f32 [B, n_mels, T], lengths: i64 [B] -> (frames f32 [B, T', d_model], frame lengths i64 [B], state)."""
        ...

    def step(
        self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Scores the next token of each stream on each of its frames.

        frames: f32 [B, T, d_model], tokens: i32 [B] (the last emitted, blank at first), state before those tokens
        (two f32 [layers, B, hidden]) -> (scores f32 [B, T, spec.decoding.n_scores], state after those tokens). A CTC model scores
        the frames alone and returns the state that it is given."""
        ...

    def stack(self, states: list[EncoderState]) -> EncoderState:
        """Joins streams, as `unstack` returned them, into a batch that `encode` takes; one stream is a batch too."""
        ...

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        """Splits a batch into streams; the inverse of `stack`. A state may be continued once: to continue it twice, take a
        deep copy."""
        ...


def looking(state: EncoderState, lookahead: Lookahead) -> EncoderState:
    """Returns the state of a stream or a batch with a lookahead; only the window of buffered streaming is part of a state."""
    return replace(state, context=lookahead) if isinstance(lookahead, ChunkContext) else state


def failed_run(runtime: str, error: Exception) -> ArtifactError:
    """Returns the error for a graph that fails as it runs."""
    return ArtifactError(
        "A graph fails as it runs.",
        expected="graphs that belong together and to config.json, and enough memory for the audio",
        found=f"{runtime}: {first_line(error)}",
        todo="check the artifact with `nemoport verify`; transcribe shorter audio or fewer streams at once",
    )


def check_frames(frames: np.ndarray, counts: np.ndarray, streams: int, spec: ModelSpec) -> None:
    """Raises ArtifactError unless an encoder gave frames f32 [streams, T, d_model] and of each stream a count up to T."""
    width = spec.encoder.d_model
    shapes = frames.ndim == 3 and (len(frames), frames.shape[2]) == (streams, width) and counts.shape == (streams,)
    if not shapes or not ((counts >= 0) & (counts <= frames.shape[1])).all():
        raise ArtifactError(
            "The encoder returns frames that do not match their count.",
            expected=f"frames [{streams}, T, {width}] and for each stream a count of at most T",
            found=f"frames {list(frames.shape)}, counts {clipped(counts.tolist())}",
            todo="build or download the variant again",
        )


def check_scores(scores: np.ndarray, frames: np.ndarray, spec: ModelSpec) -> None:
    """Raises ArtifactError unless a decoder gave scores for every frame, [B, T, n_scores]."""
    expected = (*frames.shape[:2], spec.decoding.n_scores)
    if scores.shape != expected:
        raise ArtifactError(
            "The decoder returns scores that do not match the model.",
            expected=f"{list(expected)}, by config.json",
            found=str(list(scores.shape)),
            todo="build or download the variant again",
        )
