"""Word error rates with 95 % intervals, from the errors that the gate `wer` kept of each utterance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nemoport.score import Interval, wer_interval
from nemoport.spec import context_name
from nemoport.validate.details import Texts
from nemoport.validate.page.sources import POOLED

RESAMPLES = 1000  # the ends of an interval are shown with two digits


@dataclass(frozen=True)
class Rate:
    """Error rates of some utterances at one lookahead, or at all of them. own, nemo: in percent; utterances: how many."""

    language: str  # "" for all
    context: str
    own: Interval
    nemo: Interval
    utterances: int


def rates(texts: Texts) -> list[Rate]:
    """Returns the rates over all utterances and over those in each language, at every lookahead and at all together.

    An utterance is drawn with all its runs. Where no transcript has a word there are none.
    """
    words, languages, runs = texts["words"], texts["languages"], texts["runs"]
    sides = [(context_name(run["lookahead"]), [run["errors"]], [run["nemo_errors"]]) for run in runs]
    sides.append((POOLED, [run["errors"] for run in runs], [run["nemo_errors"] for run in runs]))
    if not runs or any(len(one) != len(words) for one in (languages, *sides[-1][1], *sides[-1][2])):
        return []
    members = {"": range(len(words))}
    if len(set(languages)) > 1:
        members |= {language: _places(languages, language) for language in dict.fromkeys(languages) if language}
    return [
        Rate(language, context, _interval(words, own, chosen), _interval(words, nemo, chosen), len(chosen))
        for language, chosen in members.items()
        if any(words[place] for place in chosen)
        for context, own, nemo in sides
    ]


def _places(languages: Sequence[str], language: str) -> Sequence[int]:
    return [place for place, other in enumerate(languages) if other == language]


def _interval(words: Sequence[int], runs: Sequence[Sequence[int]], chosen: Sequence[int]) -> Interval:
    counts = Counter((sum(errors[place] for errors in runs), len(runs) * words[place]) for place in chosen)
    return _drawn(tuple(sorted(counts.items())))


@lru_cache(maxsize=10_000)
def _drawn(counts: tuple[tuple[tuple[int, int], int], ...]) -> Interval:
    """NeMo's errors are the same beside every variant."""
    return wer_interval(dict(counts), RESAMPLES)
