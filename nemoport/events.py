"""Events of a stream: tokens by which a model says that an utterance, or a backchannel ("mhm"), has ended. They are no text.

The decoder begins anew behind each, as at the start of a stream, from the next encoder frame on: models are trained on single
utterances, and emit blank for ever where an event's token stays the last one. The encoder's caches go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from nemoport.schema import whole

END_OF_UTTERANCE, END_OF_BACKCHANNEL = "end_of_utterance", "end_of_backchannel"
# As NeMo's data set of such models names them (audio_to_eou_label_lhotse.py).
PIECES = ("<EOU>", "<EOB>")
TokenId = Annotated[int, whole(0, 65_535)]


@dataclass(frozen=True)
class EventSpec:
    """The tokens that are events, by their ids; None for one that the vocabulary does not have. resets: whether the decoder
    begins anew behind them."""

    end_of_utterance: TokenId | None = None
    end_of_backchannel: TokenId | None = None
    resets: Annotated[bool, Field(strict=True)] = True

    @property
    def kinds(self) -> dict[int, str]:
        """Token id -> the name of its event."""
        tokens = {END_OF_UTTERANCE: self.end_of_utterance, END_OF_BACKCHANNEL: self.end_of_backchannel}
        return {token: kind for kind, token in tokens.items() if token is not None}

    def are_tokens(self, vocab_size: int) -> bool:
        """Whether there are events, each a token of its own."""
        stated = [token for token in (self.end_of_utterance, self.end_of_backchannel) if token is not None]
        return bool(stated) and len({*stated}) == len(stated) and max(stated) < vocab_size


@dataclass(frozen=True)
class Event:
    """An event of a stream. kind: end_of_utterance or end_of_backchannel; time: of the encoder frame on which it was emitted, in
    seconds from the recording's start; confidence: from 0 to 1, as that of a token."""

    kind: str
    time: float
    confidence: float


def events_in(pieces: Sequence[str]) -> EventSpec | None:
    """Returns the events of a vocabulary, by the names of its pieces; None where it has none. pieces: by id."""
    utterance, backchannel = (pieces.index(piece) if piece in pieces else None for piece in PIECES)
    return None if utterance is backchannel is None else EventSpec(utterance, backchannel)
