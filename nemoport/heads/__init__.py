"""Heads: the parts of a model that turn encoder frames into tokens. Each module here is one and defines HEAD, a `Head`.

The kind of a checkpoint ends with its head's name: streaming-rnnt, offline-tdt. How the graph of a head is traced is in
export/heads/, in the module of the same name.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from nemoport.beam import BeamSearch
from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence
from nemoport.errors import ArtifactError
from nemoport.interface import Interface
from nemoport.session import Session
from nemoport.spec import DecodingSpec, ModelSpec


class DecodingState(Protocol):
    """Decoder state of one stream, and the tokens so far.

    token_frames: encoder frame on which each token was emitted; token_durations: in encoder frames, 0 where the head has none;
    token_confidences: from 0 to 1, by a measure of nemoport/confidence.py;
    n_final: number of tokens that audio to come cannot change; frame: encoder frames decoded so far.
    """

    @property
    def tokens(self) -> list[int]: ...

    @property
    def token_frames(self) -> list[int]: ...

    @property
    def token_durations(self) -> list[int]: ...

    @property
    def token_confidences(self) -> list[float]: ...

    @property
    def n_final(self) -> int: ...

    @property
    def frame(self) -> int: ...

    @staticmethod
    def decode(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[Any]) -> None:
        """Decodes one chunk, or one whole utterance, of each stream of a batch and advances `states` in place.

        frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream; states: of this class.
        """
        ...


@dataclass(frozen=True)
class Head:
    """A head by its name. interface: returns the interface of the graph that scores frames; start: returns the decoding state of
    a new stream, greedy without a search, with the confidence of its tokens by a measure."""

    name: str
    interface: Callable[[ModelSpec], Interface]
    start: Callable[[DecodingSpec, BeamSearch | None, Confidence], DecodingState]


def heads() -> list[str]:
    """Lists the names of the heads that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def head_of(spec: ModelSpec) -> Head:
    """Returns the head of a model. Raises ArtifactError for a kind whose head does not exist."""
    if spec.head not in heads():
        raise ArtifactError(
            f"A model of the kind {spec.kind!r} cannot be decoded.",
            expected=f"one whose head is {' or '.join(heads())}",
            found=spec.kind,
            todo="install a newer nemoport, or export the checkpoint again",
        )
    return import_module(f"{__name__}.{spec.head}").HEAD


def greedy_state(spec: ModelSpec) -> DecodingState:
    """Returns the state of a new stream that is decoded greedily. Raises as `head_of`."""
    return head_of(spec).start(spec.decoding, None, DEFAULT_CONFIDENCE)
