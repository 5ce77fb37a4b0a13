"""Paths of a beam search through the lattice of tokens and frames, and their expansion on one frame."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nemoport.hotwords import REACH, Hotwords, Match

Expansion = tuple[int, int, float]  # token or blank, index of its duration, its log probability and boost


LstmState = tuple[np.ndarray, np.ndarray]  # of the prediction network: two f32 [layers, pred_hidden]


@dataclass
class Prediction:
    """Scores of the tokens that may follow a prefix, on some frames.

    token: the prefix's last; before, after: the state before and after it. `after` and `scores` are set by the first run.
    """

    token: int
    before: LstmState
    after: LstmState = field(init=False, repr=False)
    first: int = 0  # the frame of scores[0]
    scores: np.ndarray | tuple = ()  # f32 [n, n_scores]

    def covers(self, frame: int) -> bool:
        """Whether the frame is scored."""
        return self.first <= frame < self.first + len(self.scores)


class RankedPaths:
    """What a search gives: the tokens of its best path, with their frames, durations and confidences, and the other paths.

    shared: tokens, frames, durations and confidences that all paths begin with.
    """

    shared: tuple[list, list, list, list]

    def _ranked(self) -> list[Any]:
        """Returns the paths, best first."""
        raise NotImplementedError

    def _final(self, path: Any) -> float:
        """Returns the score of a path if the audio ended now."""
        raise NotImplementedError

    @property
    def tokens(self) -> list[int]:
        return [*self.shared[0], *self._ranked()[0].tokens]

    @property
    def token_frames(self) -> list[int]:
        return [*self.shared[1], *self._ranked()[0].frames]

    @property
    def token_durations(self) -> list[int]:
        return [*self.shared[2], *self._ranked()[0].durations]

    @property
    def token_confidences(self) -> list[float]:
        return [*self.shared[3], *self._ranked()[0].confidences]

    @property
    def n_best(self) -> list[tuple[list[int], float]]:
        """Tokens and score of each path that is kept, the best first. A score is a natural logarithm, with the boost of hotwords
        and the language model's part, not divided by the length."""
        return [([*self.shared[0], *path.tokens], self._final(path)) for path in self._ranked()]


@dataclass(frozen=True)
class BeamHypothesis:
    """A path: its tokens behind those that all paths share, and the encoder frame, duration and confidence of each, as in greedy
    decoding."""

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    durations: tuple[int, ...]
    confidences: tuple[float, ...]
    score: float  # natural logarithm, hotwords' boost included
    at: int  # the frame that it is expanded on next
    match: Match = ()

    def extend(self, token: int, duration: int, confidence: float, score: float, match: Match) -> BeamHypothesis:
        """Returns the path with one more token, emitted on the frame `at`, and its new score and match."""
        tokens, frames, durations = (*self.tokens, token), (*self.frames, self.at), (*self.durations, duration)
        return BeamHypothesis(tokens, frames, durations, (*self.confidences, confidence), score, self.at + duration, match)

    def ends_with(self, tokens: frozenset[int]) -> bool:
        """Returns whether the last token is one of these."""
        return bool(self.tokens) and self.tokens[-1] in tokens

    def count_until(self, frame: int) -> int:
        """Returns how many of the tokens were emitted on this frame or before it."""
        return bisect_right(self.frames, frame)

    def behind(self, n: int) -> BeamHypothesis:
        """Returns the path without its first `n` tokens."""
        kept = {name: getattr(self, name)[n:] for name in ("tokens", "frames", "durations", "confidences")}
        return replace(self, **kept)


def common(sequences: Sequence[Sequence]) -> int:
    """Returns how many elements all sequences begin with."""
    differ = (n for n, elements in enumerate(zip(*sequences, strict=False)) if any(e != elements[0] for e in elements))
    return next(differ, min(map(len, sequences)))


def merged(paths: Sequence[BeamHypothesis]) -> list[BeamHypothesis]:
    """Merges paths with equal tokens that are expanded on the same frame: their probabilities add up, the times are the
    likeliest one's. Returns the best first."""
    kept: dict[tuple, BeamHypothesis] = {}
    for path in sorted(paths, key=lambda p: p.score, reverse=True):
        key = (path.tokens, path.at)
        kept[key] = replace(kept[key], score=float(np.logaddexp(kept[key].score, path.score))) if key in kept else path
    return sorted(kept.values(), key=lambda p: p.score, reverse=True)


def with_prefixes(
    paths: list[BeamHypothesis],
    scores: np.ndarray,
    staying: np.ndarray,
    hotwords: Hotwords | None,
    resetting: frozenset[int] = frozenset(),
) -> list[BeamHypothesis]:
    """Adds to each path the probability of the path that is a token shorter, with that token emitted now, at duration 0.

    paths: all on one frame; scores: log probabilities of tokens, f64 [H, V + 1]; staying: those of duration 0, f64 [H];
    resetting: tokens that end their frame, so that a path which they end is not on it.
    """
    rows = {path.tokens: row for row, path in enumerate(paths)}
    out = []
    for path in paths:
        row = rows.get(path.tokens[:-1]) if path.tokens and not path.ends_with(resetting) else None
        if row is not None:
            more = paths[row].score + scores[row, path.tokens[-1]] + staying[row]
            more += hotwords.gains(paths[row].match)[path.tokens[-1]] if hotwords else 0.0
            path = replace(path, score=float(np.logaddexp(path.score, more)))
        out.append(path)
    return out


def expansions(
    scores: np.ndarray, durations: np.ndarray, count: int, gamma: float, gains: Sequence[np.ndarray] | None
) -> list[list[Expansion]]:
    """Lists for each path the likeliest pairs of a token and a duration: `count` at most, and at most `gamma` below the best.

    scores: log probabilities f64 [H, V + 1]; durations: f64 [H, D]; gains: boost of each token, f64 [V + 1] a path. The
    pairs are chosen without the boost, so that a boost removes none; those that it lifts above the floor are added.
    """
    n_tokens = min(count, scores.shape[1])
    tokens = np.argpartition(-scores, n_tokens - 1, axis=1)[:, :n_tokens]
    likely = np.take_along_axis(scores, tokens, 1)[:, :, None] + durations[:, None]  # [H, n_tokens, D]
    n_hops = durations.shape[1]
    out = []
    for row in range(len(scores)):
        flat = likely[row].ravel()
        best = np.argsort(-flat)[:count]
        floor = flat.max() - gamma
        chosen = {(int(tokens[row, i // n_hops]), int(i % n_hops)): float(flat[i]) for i in best if flat[i] >= floor}
        if gains is not None:
            chosen |= _lifted(scores[row], durations[row], gains[row], floor, count)
            chosen = {pair: value + float(gains[row][pair[0]]) for pair, value in chosen.items()}
        out.append([(token, hop, value) for (token, hop), value in chosen.items()])
    return out


def _lifted(
    scores: np.ndarray, durations: np.ndarray, gain: np.ndarray, floor: float, count: int
) -> dict[tuple[int, int], float]:
    """Returns (token, index of its duration) -> log probability, of the pairs that a boost lifts above `floor`."""
    near = scores >= scores.max() - REACH
    boosted = np.flatnonzero((gain > 0) & near & (scores + gain + durations.max() >= floor))
    boosted = boosted[np.argsort(-(scores + gain)[boosted])[:count]]
    pairs = ((int(token), hop) for token in boosted for hop in range(len(durations)))
    values = {(token, hop): float(scores[token] + durations[hop]) for token, hop in pairs}
    return {pair: value for pair, value in values.items() if value + gain[pair[0]] >= floor}
