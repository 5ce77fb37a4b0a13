"""Greedy CTC decoding, of streams and of whole utterances, over the `Session` protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence, log_softmax
from nemoport.decode import score
from nemoport.hotwords import Hotwords, Match
from nemoport.session import Session


@dataclass
class CtcState:
    """Decoder state of one stream: the runs of equal tokens so far.

    A token begins on the first frame of its run, and its duration is the length of the run. The one whose run ends with the
    audio so far can still grow, in the next chunk, so it is not final.

    open: best token of the last frame, whose run may go on; None where that was blank, or no frame came. With hotwords, another
    token may have been emitted in its place.
    """

    confidence: Confidence = DEFAULT_CONFIDENCE
    hotwords: Hotwords | None = None
    match: Match = ()  # of the hotwords
    open: int | None = None
    frame: int = 0  # encoder frames decoded so far: the time base of token times
    tokens: list[int] = field(default_factory=list)
    token_frames: list[int] = field(default_factory=list)
    token_durations: list[int] = field(default_factory=list)
    token_confidences: list[float] = field(default_factory=list)

    @property
    def n_final(self) -> int:
        """Number of tokens that audio to come cannot change: all but one whose run may go on."""
        return len(self.tokens) - (self.open is not None)

    @staticmethod
    def decode(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[CtcState]) -> None:
        """Decodes one chunk, or one whole utterance, of each stream of a batch and advances `states` in place.

        frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream. The rule is that of NeMo's `decode_hypothesis`
        (ctc_decoding.py), over the argmax of each frame: blank, and a token that the frame before had too, emit nothing. So a
        token on both sides of a chunk's edge is one, as in NeMo's `conformer_stream_step`.
        """
        decoding, scores = session.spec.decoding, score_frames(session, frames)
        best = scores.argmax(-1)
        for row, (state, length) in enumerate(zip(states, lengths, strict=True)):
            for at in range(int(length)):
                state._advance(int(best[row, at]), decoding.blank_id, scores[row, at])

    def _advance(self, token: int, blank: int, scores: np.ndarray) -> None:
        """Takes the next frame. scores: f32 [n_scores]."""
        if token == blank:
            self.open = None
        elif self.open is not None and token in (self.open, self.tokens[-1]):
            self.open = token
            self.token_durations[-1] += 1
            self.token_confidences[-1] = max(self.token_confidences[-1], self._confidence(scores))
        else:
            if self.hotwords:
                allowed = scores[:blank].copy()
                if self.open is not None:  # without a blank between, the token before would go on
                    allowed[self.tokens[-1]] = -np.inf
                emitted = self.hotwords.choose(self.match, allowed)
                self.match = self.hotwords.advance(self.match, emitted)
            else:
                emitted = token
            self.open = token
            self.tokens.append(emitted)
            self.token_frames.append(self.frame)
            self.token_durations.append(1)
            self.token_confidences.append(self._confidence(scores))
        self.frame += 1

    def _confidence(self, scores: np.ndarray) -> float:
        """Returns the confidence in the last token on a frame."""
        return self.confidence.of(log_softmax(scores), self.tokens[-1])


def score_frames(session: Session, frames: np.ndarray) -> np.ndarray:
    """Scores frames f32 [B, T, d_model] of a CTC model: f32 [B, T, V + 1]."""
    decoding, n = session.spec.decoding, len(frames)
    empty = np.zeros(decoding.state_shape(n), np.float32)
    return score(session, frames, np.full(n, decoding.blank_id, np.int32), (empty, empty))[0]
