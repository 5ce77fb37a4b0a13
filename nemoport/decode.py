"""Greedy transducer decoding, RNNT and TDT, written once for every runtime: over the `Session` protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence, log_softmax
from nemoport.hotwords import Hotwords, Match
from nemoport.session import Session, check_scores
from nemoport.spec import MASKED_SCORE, DecodingSpec


@dataclass
class GreedyState:
    """Decoder state of one stream. The prediction network has not yet consumed `token`."""

    token: int
    hidden: np.ndarray  # f32 [layers, pred_hidden], before `token`
    cell: np.ndarray  # f32 [layers, pred_hidden], before `token`
    frame: int = 0  # encoder frames decoded so far: the time base of token times
    tokens: list[int] = field(default_factory=list)
    token_frames: list[int] = field(default_factory=list)
    token_durations: list[int] = field(default_factory=list)  # in encoder frames; those of an RNNT model are 0
    token_confidences: list[float] = field(default_factory=list)
    confidence: Confidence = DEFAULT_CONFIDENCE
    hotwords: Hotwords | None = None
    match: Match = ()  # of the hotwords

    @property
    def n_final(self) -> int:
        """Number of tokens that are never revised: all."""
        return len(self.tokens)

    @staticmethod
    def initial(spec: DecodingSpec, confidence: Confidence = DEFAULT_CONFIDENCE, hotwords: Hotwords | None = None) -> GreedyState:
        """Returns the state of a new stream. confidence: measure of that in its tokens. Blank is the first target: NeMo starts
        from a zero embedding, and the blank row of the embedding table is zero."""
        zeros = np.zeros((spec.pred_layers, spec.pred_hidden), np.float32)
        return GreedyState(token=spec.blank_id, hidden=zeros, cell=zeros.copy(), confidence=confidence, hotwords=hotwords)

    def choose(self, scores: np.ndarray) -> int:
        """Returns the token that is emitted where blank is not the best, of scores f32 [V]: the best one, or a hotword's."""
        if self.hotwords is None:
            return int(scores.argmax())
        token = self.hotwords.choose(self.match, scores)
        self.match = self.hotwords.advance(self.match, token)
        return token

    def begin_anew(self, blank_id: int) -> None:
        """Sets the predictor back to the start of a stream; the tokens so far stay."""
        self.token, self.hidden, self.cell = blank_id, np.zeros_like(self.hidden), np.zeros_like(self.cell)

    @staticmethod
    def decode(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[GreedyState]) -> None:
        """Calls `greedy`."""
        greedy(session, frames, lengths, states)


def score(
    session: Session, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Calls `session.step`, and gives blank to the frames of a stream whose scores are not finite, as after an overflow in fp16.

    Its states become zeros where they are not finite, so that a later frame can be decoded. Argmax would take NaN for the best
    score, and a stream emit the first token of its vocabulary for ever.
    """
    scores, states = session.step(frames, tokens, state)
    check_scores(scores, frames, session.spec)
    best = scores.max(-1)  # NaN and infinity show in it
    if np.isfinite(best).all() and all(np.isfinite(part).all() for part in states):
        return scores, states
    blank = session.spec.decoding.blank_id
    scores = scores.copy()
    scores[~np.isfinite(best)] = np.where(np.arange(scores.shape[-1]) == blank, 0.0, MASKED_SCORE)
    hidden, cell = (np.where(np.isfinite(part), part, 0.0).astype(np.float32) for part in states)
    return scores, (hidden, cell)


AHEAD_FRAMES = 16  # joined with a prefix in one call: a chunk at the largest published lookahead, two blanks of TDT or more


def greedy(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[GreedyState]) -> None:
    """Decodes one chunk, or one whole utterance, of each stream of a batch and advances `states` in place.

    frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream. As NeMo's `greedy_batch`: an RNNT stream
    goes on a frame at each blank; a TDT stream by the duration of each token and blank, but at least one frame at a blank.
    Either stays on a frame for `max_symbols_per_frame` tokens at most. Behind a token that resets, the predictor is at the start
    and the next frame is decoded.
    """
    spec, resetting = session.spec.decoding, session.spec.resetting
    durations = np.array(spec.durations or [0])
    ahead = np.arange(min(AHEAD_FRAMES, frames.shape[1]))
    position = [0] * len(states)  # the frame of each stream that is decoded next
    symbols = [0] * len(states)  # tokens emitted on that frame
    active = [b for b in range(len(states)) if lengths[b] > 0]
    while active:
        tokens = np.array([states[b].token for b in active], np.int32)
        hidden = np.stack([states[b].hidden for b in active], 1)
        cell = np.stack([states[b].cell for b in active], 1)
        at_frames = np.array([position[b] for b in active])[:, None] + ahead
        window = frames[np.array(active)[:, None], np.minimum(at_frames, frames.shape[1] - 1)]
        scores, (next_hidden, next_cell) = score(session, window, tokens, (hidden, cell))
        best = scores[:, :, : spec.blank_id + 1].argmax(-1)
        skips = durations[scores[:, :, spec.blank_id + 1 :].argmax(-1)] if spec.durations else np.zeros_like(best)
        for row, b in enumerate(active):
            at, end = 0, min(len(ahead), int(lengths[b]) - position[b])
            while at < end and best[row, at] == spec.blank_id:
                at += max(int(skips[row, at]), 1)
            if at:
                position[b] += at
                symbols[b] = 0
            if at >= end:
                continue
            state, skip = states[b], int(skips[row, at])
            state.token = state.choose(scores[row, at, : spec.blank_id])
            state.hidden, state.cell = next_hidden[:, row], next_cell[:, row]
            state.tokens.append(state.token)
            state.token_frames.append(state.frame + position[b])
            state.token_durations.append(skip)
            log_probabilities = log_softmax(scores[row, at, : spec.blank_id + 1])
            state.token_confidences.append(state.confidence.of(log_probabilities, state.token))
            symbols[b] += 1
            if state.token in resetting:
                state.begin_anew(spec.blank_id)
                skip, symbols[b] = 0, spec.max_symbols_per_frame
            if skip or symbols[b] == spec.max_symbols_per_frame:
                position[b] += max(skip, 1)
                symbols[b] = 0
        active = [b for b in active if position[b] < lengths[b]]
    for b, state in enumerate(states):
        state.frame += int(lengths[b])
