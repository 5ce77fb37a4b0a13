"""Beam search over a transducer, RNNT and TDT: modified adaptive expansion search (mAES), over the `Session` protocol.

Kim et al., "Accelerating RNN Transducer Inference via Adaptive Expansion Search", IEEE Signal Processing Letters 27
(2020), in the form of NeMo's `maes`. Frame by frame, a path is extended by blank and by the tokens that are nearly as likely
as its likeliest one, up to `steps` tokens a frame; then the `width` best paths are kept. An RNNT model is searched as a TDT
model whose only duration is 0.

One thing differs from NeMo: its search for TDT counts a path twice, once by the prefix search and again by the expansion;
its search for RNNT counts it once, as here.

In a live stream the paths would differ for minutes: in silence no path becomes likelier than another, so that none is dropped.
`BeamSearch.final_enc_frames` bounds that: what the best path emitted that long ago is final, and paths that emitted something
else are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np

from nemoport.beam_hypotheses import BeamHypothesis, Prediction, RankedPaths, common, expansions, merged, with_prefixes
from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence, log_softmax
from nemoport.decode import score
from nemoport.errors import UsageError
from nemoport.hotwords import Hotwords
from nemoport.language_model import LanguageModel
from nemoport.session import Session
from nemoport.spec import DecodingSpec

AHEAD_FRAMES = 4  # joined with a prefix in one call: most new prefixes are dropped soon, so fewer than greedy's

WIDEST = 10_000  # the work of a frame grows with the square of the width


@dataclass(frozen=True)
class BeamSearch:
    """Settings of a search. The defaults are NeMo's.

    width: paths that are kept (`beam_size`); steps: most tokens on one frame (`maes_num_steps`), in place of
    greedy's max_symbols_per_frame; a path is extended in at most width + beta ways (`maes_expansion_beta`), each at most gamma
    below the likeliest in log probability (`maes_expansion_gamma`). prefixes: the probability of the path that is one token
    shorter is added to a path (`maes_prefix_alpha` 1; False is its 0). normalize: the best path is the best by score per token,
    with the start as one (`score_norm`). final_enc_frames: encoder frames after which the text of the best path is final, None
    for what all paths have in common only, which has no bound. language_model: of a CTC head only. Raises UsageError for a value
    out of bounds.
    """

    width: int
    steps: int = 2
    beta: int = 2
    gamma: float = 2.3
    prefixes: bool = True
    normalize: bool = True
    hotwords: Hotwords | None = None
    final_enc_frames: int | None = None
    language_model: LanguageModel | None = None

    def __post_init__(self):
        bounds = {"width": (1, WIDEST), "steps": (1, WIDEST), "beta": (0, WIDEST), "gamma": (0, math.inf)}
        for name, (least, most) in (bounds | {"final_enc_frames": (0, math.inf)}).items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                what = f"A beam search cannot have {name} {value}."
                todo = "choose 4, or 1 for greedy decoding" if name == "width" else "leave it out for the default"
                raise UsageError(what, expected=f"{least} or more, at most {most:g}", found=str(value), todo=todo)


Requests = list[tuple[Prediction, int]]  # predictions to run, each with the frame to run it from
# Steps of a search: they yield requests, and continue when these have run.
SearchSteps = Generator[Requests, None, list[BeamHypothesis]]
ScoreSteps = Generator[Requests, None, tuple[np.ndarray, np.ndarray]]


@dataclass
class Beam(RankedPaths):
    """Decoding state of one stream. `tokens` and their frames, durations and confidences are the best path's, as if the
    stream ended now. Audio to come can change them, but for the first `n_final` ones, which all paths have in common."""

    search: BeamSearch
    spec: DecodingSpec
    paths: list[BeamHypothesis]  # best first
    predictions: dict[tuple[int, ...], Prediction]  # by the tokens of a path
    frame: int = 0  # encoder frames decoded so far: the time base of token times
    # Tokens, frames, durations and confidences that all paths begin with.
    shared: tuple[list, list, list, list] = field(default_factory=lambda: ([], [], [], []))
    confidence: Confidence = DEFAULT_CONFIDENCE

    @staticmethod
    def initial(search: BeamSearch, spec: DecodingSpec, confidence: Confidence = DEFAULT_CONFIDENCE) -> Beam:
        """Returns the state of a new stream. confidence: measure of that in its tokens."""
        match = search.hotwords.start if search.hotwords else ()
        path = BeamHypothesis((), (), (), (), 0.0, 0, match)
        return Beam(search, spec, [path], {(): _first_prediction(spec)}, confidence=confidence)

    @staticmethod
    def decode(session: Session, frames: np.ndarray, lengths: np.ndarray, states: list[Beam]) -> None:
        """Calls `beam_search`."""
        beam_search(session, frames, lengths, states)

    @property
    def n_final(self) -> int:
        """Number of tokens that audio to come cannot change."""
        return len(self.shared[0]) + common([path.tokens for path in self.paths])

    def _final(self, path: BeamHypothesis) -> float:
        return path.score + (self.search.hotwords.end(path.match) if self.search.hotwords else 0.0)

    def _ranked(self) -> list[BeamHypothesis]:
        def rank(path: BeamHypothesis) -> float:
            return self._final(path) / (1 + len(self.shared[0]) + len(path.tokens) if self.search.normalize else 1)

        return sorted(self.paths, key=rank, reverse=True)

    def run(self, n_frames: int, resetting: frozenset[int] = frozenset()) -> SearchSteps:
        """Searches the next frames of the stream and returns the paths that are kept. resetting: tokens behind which the
        predictor begins anew, on the next frame."""
        for frame in range(self.frame, self.frame + n_frames):
            if paths := [path for path in self.paths if path.at == frame]:
                later = [path for path in self.paths if path.at > frame]
                self.paths = merged(later + (yield from self._expand(frame, paths, resetting)))[: self.search.width]
            self._share(frame)
        self.frame += n_frames
        return self.paths

    def _expand(self, frame: int, paths: list[BeamHypothesis], resetting: frozenset[int]) -> SearchSteps:
        """Expands the paths that are at this frame until all are at later ones, and returns those."""
        hops = self.spec.durations or (0,)
        shortest = min(range(len(hops)), key=lambda i: hops[i] or np.inf)
        hotwords, blank, count = self.search.hotwords, self.spec.blank_id, self.search.width + self.search.beta
        left: list[BeamHypothesis] = []
        known: set[tuple[int, ...]] = set()
        for step in range(self.search.steps):
            scores, durations = yield from self._scores(frame, paths)
            if step == 0 and self.search.prefixes and 0 in hops:
                paths = with_prefixes(paths, scores, durations[:, hops.index(0)], hotwords, resetting)
                known = self._counted([path for path in paths if not path.ends_with(resetting)])
            gains = [hotwords.gains(path.match) for path in paths] if hotwords else None
            grown: list[BeamHypothesis] = []
            ways_on = expansions(scores, durations, count, self.search.gamma, gains)
            for path, row, ways in zip(paths, scores, ways_on, strict=True):
                for token, hop, gain in ways:
                    duration, score = hops[hop], path.score + gain
                    if token == blank:
                        left.append(replace(path, score=score, at=frame + (duration or hops[shortest] or 1)))
                    elif duration or (*path.tokens, token) not in known:
                        match = hotwords.advance(path.match, token) if hotwords else ()
                        longer = path.extend(token, duration, self.confidence.of(row, token), score, match)
                        grown.append(replace(longer, at=frame + 1) if token in resetting else longer)
            for path in grown:
                token, after = path.tokens[-1], self.predictions[path.tokens[:-1]].after
                behind = _first_prediction(self.spec) if token in resetting else Prediction(token, after)
                self.predictions.setdefault(path.tokens, behind)
            left += [path for path in grown if path.at > frame]
            paths = [path for path in grown if path.at == frame]
            paths = merged(paths) if step < self.search.steps - 1 else paths
            if not paths:
                return left
        scores, durations = yield from self._scores(frame, paths)
        for row, path in enumerate(paths):  # these have `steps` tokens on this frame: only blank may follow
            hop = int(durations[row].argmax())
            hop = hop if hops[hop] else shortest
            score = path.score + float(scores[row, blank] + durations[row, hop])
            left.append(replace(path, score=score, at=frame + (hops[hop] or 1)))
        return left

    @staticmethod
    def _counted(paths: list[BeamHypothesis]) -> set[tuple[int, ...]]:
        """Returns the tokens that no prefix is expanded to, because `with_prefixes` has added that probability."""
        return {path.tokens for path in paths}

    def _scores(self, frame: int, paths: list[BeamHypothesis]) -> ScoreSteps:
        """Returns log probabilities f64 of tokens and blank [H, V + 1], and of durations [H, D]; that of RNNT's one is 0."""
        predictions = [self.predictions[path.tokens] for path in paths]
        if requests := [(prediction, frame) for prediction in predictions if not prediction.covers(frame)]:
            yield requests
        rows = np.stack([p.scores[frame - p.first] for p in predictions]).astype(np.float64)
        durations = log_softmax(rows[:, self.spec.blank_id + 1 :]) if self.spec.durations else np.zeros((len(rows), 1))
        return log_softmax(rows[:, : self.spec.blank_id + 1]), durations

    def _share(self, frame: int) -> None:
        """Moves tokens to `shared`, so that paths stay short in a long stream, and removes the predictions of paths that were
        dropped: tokens that all paths begin with, at equal times, and those that are final by their age at this frame."""
        best, n = self.paths[0], 0
        if (age := self.search.final_enc_frames) is not None and self._oldest() <= frame - age:
            best = self._ranked()[0]
            n = best.count_until(frame - age)
            self.paths = [p for p in self.paths if p.tokens[:n] == best.tokens[:n] and p.count_until(frame - age) <= n]
        n = max(n, common([list(zip(path.tokens, path.frames, path.durations, strict=True)) for path in self.paths]))
        self.predictions = {path.tokens[n:]: self.predictions[path.tokens] for path in self.paths}
        if n:
            for shared, of_path in zip(self.shared, (best.tokens, best.frames, best.durations, best.confidences), strict=True):
                shared.extend(of_path[:n])
            self.paths = [path.behind(n) for path in self.paths]

    def _oldest(self) -> float:
        """Returns the frame of the first token behind `shared`."""
        return min((path.frames[0] for path in self.paths if path.frames), default=math.inf)


def _first_prediction(spec: DecodingSpec) -> Prediction:
    zeros = np.zeros((spec.pred_layers, spec.pred_hidden), np.float32)
    return Prediction(spec.blank_id, (zeros, zeros))  # blank is the first target, as greedy's


def beam_search(session: Session, frames: np.ndarray, lengths: np.ndarray, beams: list[Beam]) -> None:
    """Decodes one chunk, or one whole utterance, of each stream of a batch and advances `beams` in place.

    frames: f32 [B, T, d_model]; lengths: i64 [B], valid frames of each stream. All streams and all their paths share a
    decoder call; a prefix is predicted once, however many paths and frames need it.
    """
    starts = [beam.frame for beam in beams]
    runs = {row: beam.run(int(lengths[row]), session.spec.resetting) for row, beam in enumerate(beams)}
    waiting = {row: requests for row, run in runs.items() if (requests := next(run, None)) is not None}
    while waiting:
        batch = [(row, prediction, frame - starts[row]) for row, requests in waiting.items() for prediction, frame in requests]
        rows, at = np.array([row for row, _, _ in batch]), np.array([frame for _, _, frame in batch])
        ahead = np.minimum(at[:, None] + np.arange(AHEAD_FRAMES), frames.shape[1] - 1)
        hidden, cell = (np.stack([prediction.before[i] for _, prediction, _ in batch], 1) for i in (0, 1))
        tokens = np.array([prediction.token for _, prediction, _ in batch], np.int32)
        scores, (hidden, cell) = score(session, frames[rows[:, None], ahead], tokens, (hidden, cell))
        for i, (row, prediction, frame) in enumerate(batch):
            prediction.first, prediction.scores = starts[row] + frame, scores[i, : int(lengths[row]) - frame]
            prediction.after = hidden[:, i], cell[:, i]
        waiting = {row: requests for row in waiting if (requests := next(runs[row], None)) is not None}
