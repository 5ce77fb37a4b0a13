"""Confidence of tokens and words: how sure the model was, from 0 to 1, by the measures that NeMo names.

A measure maps the probabilities of all tokens and blank, of which one was emitted, to 0 (all equally likely) up to 1 (one is
certain). The confidence of a word is the least of its tokens', as NeMo's default aggregation `min`. Neither is a probability of
being right: `nemoport validate` reports how far from one it is on speech with transcripts.

Laptev and Ginsburg, "Fast Entropy-Based Methods of Word-Level Confidence Estimation for End-to-End Automatic Speech Recognition",
SLT 2022. Formulas as NeMo's `get_confidence_measure_bank`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nemoport.errors import UsageError

# (log probabilities f32 [V + 1] of tokens and blank, that of the emitted token, V + 1, alpha) -> confidence
_Measure = Callable[[np.ndarray, float, int, float], float]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Computes log-softmax over the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _max_prob(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    return (math.exp(alpha * emitted) * v**alpha - 1) / (v**alpha - 1)


def _power_sum(x: np.ndarray, alpha: float) -> float:
    return float(np.exp(alpha * x).sum())


def _gibbs(x: np.ndarray, alpha: float) -> float:
    return float((np.exp(alpha * x) * x).sum())


def _gibbs_lin(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    return 1 + _gibbs(x, alpha) / math.log(v) / v ** (1 - alpha)


def _gibbs_exp(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    least = v ** (-alpha * v ** (1 - alpha))
    return (math.exp(alpha * _gibbs(x, alpha)) - least) / (1 - least)


def _tsallis_lin(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    return 1 + (1 - _power_sum(x, alpha)) / (v ** (1 - alpha) - 1)


def _tsallis_exp(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    least = math.exp((1 - v ** (1 - alpha)) / (1 - alpha))
    return (math.exp((1 - _power_sum(x, alpha)) / (1 - alpha)) - least) / (1 - least)


def _renyi_lin(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    return 1 + math.log(_power_sum(x, alpha)) / (alpha - 1) / math.log(v)


def _renyi_exp(x: np.ndarray, emitted: float, v: int, alpha: float) -> float:
    return (_power_sum(x, alpha) ** (1 / (alpha - 1)) * v - 1) / (v - 1)


NEMO_ALPHA = 0.33  # NeMo's default, for its default measure entropy_tsallis_exp
# Name in NeMo's bank -> measure, and its alpha: the power that flattens the probabilities. max_prob has 1: the probability of the
# emitted token, which is the likeliest one unless a beam or hotwords chose another.
MEASURES: dict[str, tuple[_Measure, float]] = {
    "max_prob": (_max_prob, 1.0),
    "entropy_gibbs_lin": (_gibbs_lin, NEMO_ALPHA),
    "entropy_gibbs_exp": (_gibbs_exp, NEMO_ALPHA),
    "entropy_tsallis_lin": (_tsallis_lin, NEMO_ALPHA),
    "entropy_tsallis_exp": (_tsallis_exp, NEMO_ALPHA),
    "entropy_renyi_lin": (_renyi_lin, NEMO_ALPHA),
    "entropy_renyi_exp": (_renyi_exp, NEMO_ALPHA),
}
DEFAULT_MEASURE = "max_prob"


@dataclass(frozen=True)
class Confidence:
    """A measure by its name in MEASURES. Raises UsageError for another name."""

    measure: str = DEFAULT_MEASURE

    def __post_init__(self):
        if self.measure not in MEASURES:
            todo = "choose one of them, or leave it out"
            raise UsageError(
                "There is no such measure of confidence.", expected=", ".join(MEASURES), found=self.measure, todo=todo
            )

    def of(self, log_probabilities: np.ndarray, token: int) -> float:
        """Returns the confidence in an emitted token, by the log probabilities f32 [V + 1] of tokens and blank on its frame."""
        measure, alpha = MEASURES[self.measure]
        value = measure(log_probabilities, float(log_probabilities[token]), len(log_probabilities), alpha)
        return min(max(value, 0.0), 1.0)


DEFAULT_CONFIDENCE = Confidence()
