"""How far the confidence of words is from the share of them that is right, against transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemoport.score import units
from nemoport.words import Word

BINS = 10  # of equal width


@dataclass(frozen=True)
class Bin:
    """Words of similar confidence. lower: end of the bin, the upper one is 1 / BINS above; mean: their confidence; right: the
    share of them that the transcript has; n: how many."""

    lower: float
    mean: float
    right: float
    n: int


def judged_words(words: Sequence[Word], reference: str, language: str = "") -> list[tuple[float, bool]]:
    """Returns (confidence, whether it is right) of each unit that is scored: word, or character of a language without spaces.

    A unit is right if the alignment by which errors are counted puts an equal one of the transcript beside it. A unit has the
    confidence of the word that it is in.
    """
    import jiwer

    said = [(unit, word.confidence) for word in words for unit in units(word.text, language).split()]
    expected = units(reference, language)
    if not said:
        return []
    right: set[int] = set()
    if expected:
        found = jiwer.process_words(expected, " ".join(unit for unit, _ in said))
        for chunk in found.alignments[0]:
            if chunk.type == "equal":
                right |= set(range(chunk.hyp_start_idx, chunk.hyp_end_idx))
    return [(confidence, i in right) for i, (_, confidence) in enumerate(said)]


def reliability(judged: Sequence[tuple[float, bool]]) -> list[Bin]:
    """Returns the bins that hold a word, in order. judged: (confidence, whether it is right)."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in judged:
        members.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right))
    return [
        Bin(index / BINS, sum(c for c, _ in found) / len(found), sum(r for _, r in found) / len(found), len(found))
        for index, found in sorted(members.items())
    ]


def expected_calibration_error(judged: Sequence[tuple[float, bool]]) -> float:
    """Returns the mean distance between the confidence of the words in a bin and their share that is right, weighted by their
    number (Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015). NaN without a word."""
    found = reliability(judged)
    total = sum(one.n for one in found)
    return sum(abs(one.mean - one.right) * one.n for one in found) / total if total else float("nan")
