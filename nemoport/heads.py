"""Heads: what turns encoder frames into tokens. The kind of a checkpoint ends with its head's name: streaming-rnnt, offline-tdt.

A head is the interface of its graph, here; how it is decoded, a class of decoding states (decode.py, beam.py); and how its graph
is traced, in export/heads.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nemoport.beam import Beam, BeamSearch
from nemoport.decode import GreedyState
from nemoport.errors import ArtifactError
from nemoport.interface import F32, I32, Interface, Tensor
from nemoport.session import Session
from nemoport.spec import DecodingSpec, ModelSpec


class DecodingState(Protocol):
    """Decoder state of one stream, and the tokens so far.

    token_frames: encoder frame on which each token was emitted; token_durations: in encoder frames, 0 where the head has none;
    n_final: how many of the tokens nothing that follows can change.
    """

    @property
    def tokens(self) -> list[int]: ...

    @property
    def token_frames(self) -> list[int]: ...

    @property
    def token_durations(self) -> list[int]: ...

    @property
    def n_final(self) -> int: ...

    @staticmethod
    def decode(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[Any]) -> None:
        """Decodes one chunk, or one whole utterance, of each stream of a batch and advances `states` in place.

        frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream; states: of this class.
        """
        ...


@dataclass(frozen=True)
class Head:
    """interface: of the graph that scores frames; start: the decoding state of a new stream, greedy without a search."""

    name: str
    interface: Callable[[ModelSpec], Interface]
    start: Callable[[DecodingSpec, BeamSearch | None], DecodingState]


def transducer_interface(spec: ModelSpec) -> Interface:
    """Of NeMo's fused prediction network and joint (`decoder_joint`)."""
    state = Tensor(F32, (spec.decoding.pred_layers, None, spec.decoding.pred_hidden))
    return Interface(
        {
            "encoder_outputs": Tensor(F32, (None, spec.encoder.d_model, None)),
            "targets": Tensor(I32, (None, None)),
            "target_length": Tensor(I32, (None,)),
            "input_states_1": state,
            "input_states_2": state,
        },
        {
            "outputs": Tensor(F32, (None, None, None, spec.decoding.n_scores)),
            "prednet_lengths": Tensor(I32, (None,)),
            "output_states_1": state,
            "output_states_2": state,
        },
    )


def start_transducer(spec: DecodingSpec, search: BeamSearch | None) -> DecodingState:
    return Beam.initial(search, spec) if search else GreedyState.initial(spec)


# RNNT is decoded as a TDT whose only duration is 0.
HEADS = {name: Head(name, transducer_interface, start_transducer) for name in ("rnnt", "tdt")}


def head_of(spec: ModelSpec) -> Head:
    """Raises ArtifactError for a kind whose head is not known."""
    if spec.head not in HEADS:
        raise ArtifactError(
            f"A model of the kind {spec.kind!r} cannot be decoded.",
            expected=f"one whose head is {' or '.join(HEADS)}",
            found=spec.kind,
            todo="install a newer nemoport, or export the checkpoint again",
        )
    return HEADS[spec.head]
