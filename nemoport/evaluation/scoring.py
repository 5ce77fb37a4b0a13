"""Scores stored texts: word error rates with their intervals, over all and by language or other fields. Needs no audio."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoport.errors import UsageError
from nemoport.evaluation.identity import Identity
from nemoport.evaluation.results import finished, read_records
from nemoport.evaluation.scorers import Scorer
from nemoport.evaluation.transcriber import Record
from nemoport.files import sha256_file, write_json
from nemoport.score import WordCounts, wer_interval
from nemoport.text import clipped

LANGUAGE = "language"
MOST_GROUPS = 1000  # values of a field; one with more is a name of something


@dataclass
class Tally:
    """Counts of a group of utterances. classes: how many have so many (errors, words)."""

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    classes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, counts: WordCounts) -> None:
        """Adds an utterance."""
        self.words += counts.words
        self.substitutions += counts.substitutions
        self.deletions += counts.deletions
        self.insertions += counts.insertions
        self.classes[counts.errors, counts.words] += 1

    def described(self) -> dict[str, Any]:
        """Returns its figures. percent, lower, upper: errors by words with the 95 % interval over utterances; None without a
        word."""
        interval = wer_interval(self.classes)
        rates = {"percent": interval.value, "lower": interval.lower, "upper": interval.upper}
        counts = {key: value for key, value in vars(self).items() if key != "classes"}
        figures = {key: round(value, 4) if self.words else None for key, value in rates.items()}
        return {"utterances": self.classes.total(), **counts, **figures}


def score(results: Path, scorer: Scorer, by: Sequence[str] = (LANGUAGE,)) -> dict[str, Any]:
    """Scores complete results, writes scores/NAME.json beside them, and returns what it holds.

    by: `language`, and fields that the data set has. Utterances without a reference, and failed ones, are counted and left out.
    Raises ArtifactError for results that are not complete, UsageError for a language that the scorer is not for, and for a field
    that makes no groups.
    """
    path = finished(results)
    every = Tally()
    groups: dict[str, defaultdict[str, Tally]] = {name: defaultdict(Tally) for name in by}
    left_out = {"failed": 0, "without_reference": 0}
    for record in read_records(path):
        if "error" in record:
            left_out["failed"] += 1
        elif record.get("reference") is None:
            left_out["without_reference"] += 1
        else:
            scorer.check_language(record[LANGUAGE])
            counts = scorer.count(record["reference"], record["text"], record[LANGUAGE])
            every.add(counts)
            for name, value in _values(record, by):
                groups[name][value].add(counts)
                if len(groups[name]) > MOST_GROUPS:
                    raise _no_groups(name, f"more than {MOST_GROUPS} values")
    for name in by:
        if every.classes and name != LANGUAGE and not groups[name]:
            raise _no_groups(name, "no utterance with it")
    identity = Identity.read(results)
    found = {
        "scorer": scorer.name,
        "version": scorer.version,
        "libraries": scorer.libraries,
        "unit": scorer.unit,
        "hypotheses_sha256": sha256_file(path),
        "artifact": identity.artifact,
        "options": identity.options,
        "data": identity.data,
        "overall": every.described(),
        "groups": {name: {value: of[value].described() for value in sorted(of)} for name, of in groups.items() if of},
        **left_out,
    }
    write_json(results / "scores" / f"{scorer.name}.json", found)
    return found


def _values(record: Record, by: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in by:
        value = record[LANGUAGE] if name == LANGUAGE else record["fields"].get(name)
        if value:
            yield name, value


def _no_groups(name: str, found: str) -> UsageError:
    todo = "name a field that the data set has for many utterances"
    return UsageError(f"Scores by {clipped(name)} cannot be given.", expected="some groups", found=found, todo=todo)
