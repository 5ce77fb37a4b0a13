"""Prefix beam search over the log probabilities of a CTC head (Graves 2012, "Supervised Sequence Labelling", 7.5.3; Hannun et al.
2014, arXiv:1408.2873), with an n-gram language model of words and hotwords.

A path is a text: the probabilities of all its alignments add up, in two sums, of those that end in blank and of those that end
in its last token, because a token that comes again is a new one behind blank only. Frame by frame, the paths are extended by the
tokens that are likely enough, and the `width` best are kept.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field, replace

import numpy as np

from nemoport.beam import BeamSearch
from nemoport.beam_hypotheses import RankedPaths, common
from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence, log_softmax
from nemoport.ctc import score_frames
from nemoport.hotwords import REACH, Match
from nemoport.language_model import Context
from nemoport.session import Session

IMPOSSIBLE = -math.inf
PATH_REACH = 12.0  # a path that is less likely than the best one by more is dropped, in log score without hotwords


@dataclass(slots=True)
class CtcPath:
    """A text: its tokens behind those that all paths share; of each the first frame of its likeliest alignment, the number of
    frames that it lasts and its confidence."""

    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    durations: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
    blank: float = 0.0  # log probability of the alignments that end in blank
    label: float = IMPOSSIBLE  # of those that end in the last token
    boost: float = 0.0  # of hotwords
    match: Match = ()
    context: Context | None = None  # of the language model
    open: bool = False  # whether the last token may go on
    score: float = 0.0  # what paths are compared by: of all alignments, with boost and language model

    def count_until(self, frame: int) -> int:
        """Returns how many of the tokens were emitted on this frame or before it."""
        return bisect_right(self.frames, frame)

    def behind(self, n: int) -> CtcPath:
        """Returns the path without its first `n` tokens."""
        kept = {name: getattr(self, name)[n:] for name in ("tokens", "frames", "durations", "confidences")}
        return replace(self, **kept)


def _added(a: float, b: float) -> float:
    """log(exp(a) + exp(b)), several times as fast as numpy's for two numbers."""
    if a < b:
        a, b = b, a
    return a + math.log1p(math.exp(b - a)) if b > IMPOSSIBLE else a


@dataclass
class CtcBeam(RankedPaths):
    """Decoding state of one stream. `tokens` and their frames, durations and confidences are the best path's, as if the stream
    ended now. Audio to come can change them, but for the first `n_final` ones, which all paths share and which have ended.
    """

    search: BeamSearch
    blank_id: int
    paths: list[CtcPath]  # best first
    frame: int = 0  # encoder frames decoded so far: the time base of token times
    shared: tuple[list, list, list, list] = field(default_factory=lambda: ([], [], [], []))
    confidence: Confidence = DEFAULT_CONFIDENCE
    n_final: int = 0  # tokens that audio to come cannot change

    @staticmethod
    def decode(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[CtcBeam]) -> None:
        """Decodes one chunk, or one whole utterance, of each stream of a batch and advances `states` in place.

        frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream."""
        for state, scores, length in zip(states, score_frames(session, frames), lengths, strict=True):
            state.run(log_softmax(scores[: int(length)]))

    @staticmethod
    def initial(search: BeamSearch, blank_id: int, confidence: Confidence = DEFAULT_CONFIDENCE) -> CtcBeam:
        """Returns the state of a new stream. confidence: measure of that in its tokens."""
        match = search.hotwords.start if search.hotwords else ()
        first = CtcPath(match=match, context=search.language_model.start if search.language_model else None)
        return CtcBeam(search, blank_id, [first], confidence=confidence)

    def _final(self, path: CtcPath) -> float:
        total, search = _added(path.blank, path.label) + path.boost, self.search
        total += search.hotwords.end(path.match) if search.hotwords else 0.0
        return total + (search.language_model.end(path.context) if search.language_model and path.context else 0.0)

    def _ranked(self) -> list[CtcPath]:
        return sorted(self.paths, key=self._final, reverse=True)

    def run(self, log_probabilities: np.ndarray) -> None:
        """Searches the next frames of the stream: f32 [T, V + 1], natural logarithms."""
        for row in log_probabilities.astype(np.float64):
            self.paths = self._extended(row)
            self._share()
            self.frame += 1

    def _extended(self, row: np.ndarray) -> list[CtcPath]:
        """Returns the paths that are kept behind one more frame, best first; row: f64 [V + 1]."""
        likely = self._likely(row)
        texts: dict[tuple[int, ...], CtcPath] = {}
        for path in self.paths:  # the same texts: blank, or the last token goes on
            total = _added(path.blank, path.label)
            label = path.label + row[path.tokens[-1]] if path.tokens else IMPOSSIBLE
            stayed = replace(path, blank=total + row[self.blank_id], label=label)
            stayed.open = path.open and label > stayed.blank
            if stayed.open:
                confidence = max(path.confidences[-1], self.confidence.of(row, path.tokens[-1]))
                stayed.durations = (*path.durations[:-1], path.durations[-1] + 1)
                stayed.confidences = (*path.confidences[:-1], confidence)
            texts[path.tokens] = stayed
        for path in self.paths:
            total = _added(path.blank, path.label)
            gains = self.search.hotwords.gains(path.match) if self.search.hotwords else None
            last = path.tokens[-1] if path.tokens else self.blank_id
            for token in likely if gains is None else self._lifted(row, gains, likely):
                score = (path.blank if token == last else total) + row[token]
                if score == IMPOSSIBLE:
                    continue
                tokens = (*path.tokens, token)
                if (other := texts.get(tokens)) is None:
                    texts[tokens] = self._new(path, token, score, row, 0.0 if gains is None else float(gains[token]))
                    continue
                if score > other.label:
                    other.frames, other.durations = (*other.frames[:-1], self.frame), (*other.durations[:-1], 1)
                    other.confidences = (*other.confidences[:-1], self.confidence.of(row, token))
                    other.open = True
                other.label = _added(other.label, score)
        for path in texts.values():
            path.score = _added(path.blank, path.label) + path.boost + (path.context.score if path.context else 0.0)
        best = sorted(texts.values(), key=lambda path: path.score, reverse=True)[: self.search.width]
        floor = max(path.score - path.boost for path in best) - PATH_REACH
        return [path for path in best if path.score - path.boost >= floor]

    def _likely(self, row: np.ndarray) -> list[int]:
        """Returns the tokens that a path is extended by: near the best one, and not more than the search's number."""
        n = min(self.search.width + self.search.beta, self.blank_id)
        top = np.argpartition(-row[: self.blank_id], n - 1)[:n]
        return [int(token) for token in top if row[token] >= row.max() - REACH]

    def _lifted(self, row: np.ndarray, gains: np.ndarray, likely: list[int]) -> list[int]:
        """Returns these tokens, and the others near the best one that continue a hotword."""
        near = np.flatnonzero((gains[: self.blank_id] > 0) & (row[: self.blank_id] >= row.max() - REACH))
        return likely + [int(token) for token in near if token not in likely]

    def _new(self, path: CtcPath, token: int, score: float, row: np.ndarray, gain: float) -> CtcPath:
        hotwords, language_model = self.search.hotwords, self.search.language_model
        return CtcPath(
            (*path.tokens, token),
            (*path.frames, self.frame),
            (*path.durations, 1),
            (*path.confidences, self.confidence.of(row, token)),
            IMPOSSIBLE,
            score,
            path.boost + gain,
            hotwords.advance(path.match, token) if hotwords else (),
            language_model.advance(path.context, token) if language_model and path.context else None,
            open=True,
        )

    def _share(self) -> None:
        """Moves tokens to `shared`, so that paths stay short in a long stream: those that all paths begin with, at equal times,
        and those that are final by their age at this frame. The last token of each path stays, as it may go on."""
        best, n = self.paths[0], 0
        age = self.search.final_enc_frames
        if age is not None and min((p.frames[0] for p in self.paths if p.frames), default=math.inf) <= self.frame - age:
            best = self._ranked()[0]
            n = best.count_until(self.frame - age)
            self.paths = [p for p in self.paths if p.tokens[:n] == best.tokens[:n] and p.count_until(self.frame - age) <= n]
        alike = common([path.tokens for path in self.paths])
        growing = any(path.open and len(path.tokens) == alike for path in self.paths)
        self.n_final = max(self.n_final, len(self.shared[0]) + alike - growing)
        n = max(n, common([list(zip(p.tokens, p.frames, p.durations, strict=True)) for p in self.paths]))
        n = min(n, min(len(path.tokens) for path in self.paths) - 1)
        if n > 0:
            for shared, of_path in zip(self.shared, (best.tokens, best.frames, best.durations, best.confidences), strict=True):
                shared.extend(of_path[:n])
            self.paths = [path.behind(n) for path in self.paths]
