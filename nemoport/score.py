"""Word error rates, and their bootstrap intervals."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# What a model writes and nobody says: `<EOU>`, `<EOB>`, `<de-DE>`, `<|en|>`, `</s>`. References of such models hold them too, as
# NeMo's data set of end-of-utterance models appends them, so that both sides are scored without.
SPECIAL = re.compile(r"<[^<>\s]{1,64}>")
RESAMPLES, SEED = 10_000, 0
MOST_DRAWN = 1 << 24  # counts that the bootstrap of many utterances holds at once, 8 bytes each
UNSPACED = ("ja", "zh", "yue", "cmn", "th", "lo", "km", "my")  # written without spaces: characters are counted


@dataclass(frozen=True)
class WordCounts:
    """Counts of one utterance: words in the reference, or characters of a language without spaces, and errors against it."""

    words: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Interval:
    """A figure with the 95 % interval of its bootstrap."""

    value: float
    lower: float
    upper: float


def normalise(text: str) -> str:
    """Reduces text to what is scored, so that conventions of writing are not errors: NFKC, lower case, single spaces, no
    special tokens, no punctuation but the apostrophe.

    Letters, numbers and the marks that belong to them stay (Unicode categories L, N, M): the vowel signs of Hindi are
    marks. Characters that only arrange others (Cf, such as joiners) go without a trace.
    """
    text = unicodedata.normalize("NFKC", without_special(text)).replace("\u2019", "'").lower()
    return " ".join("".join(map(_kept, text)).split())


def without_special(text: str) -> str:
    """Returns the text without special tokens: what stands in angle brackets without a space, language tags included."""
    return SPECIAL.sub(" ", text).strip()


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    return character if category[0] in "LNM" or character == "'" else "" if category == "Cf" else " "


def is_unspaced(language: str) -> bool:
    """Whether a language, by its BCP 47 code, is scored by characters."""
    return language.replace("_", "-").partition("-")[0].lower() in UNSPACED


def units(text: str, language: str = "") -> str:
    """Returns the normalised text with a space between the units that are counted: words, or characters."""
    normal = normalise(text)
    return " ".join(normal.replace(" ", "")) if is_unspaced(language) else normal


def count_words(reference: str, hypothesis: str, language: str = "") -> WordCounts:
    """Counts errors. An empty hypothesis is all deletions; an empty reference makes every word an insertion."""
    return count_units(units(reference, language), units(hypothesis, language))


def count_units(reference: str, hypothesis: str) -> WordCounts:
    """Counts errors of units with spaces between them, as `count_words`."""
    import jiwer

    if not reference:
        return WordCounts(0, 0, 0, len(hypothesis.split()))
    if not hypothesis:
        return WordCounts(len(reference.split()), 0, len(reference.split()), 0)
    found = jiwer.process_words(reference, hypothesis)
    return WordCounts(len(reference.split()), found.substitutions, found.deletions, found.insertions)


def count_all(references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str] = ()) -> list[WordCounts]:
    """Counts the errors of each utterance. languages: BCP 47 codes; none where all are written with spaces."""
    languages = languages or [""] * len(references)
    return [count_words(*row) for row in zip(references, hypotheses, languages, strict=True)]


def wer_percent(counts: Sequence[WordCounts]) -> float:
    """Word error rate, 100 * errors / words over all utterances; NaN without a word."""
    words = sum(c.words for c in counts)
    return 100.0 * sum(c.errors for c in counts) / words if words else float("nan")


def wer_difference(variant: Sequence[Sequence[WordCounts]], base: Sequence[Sequence[WordCounts]]) -> Interval:
    """WER points by which `variant` is worse than `base`: paired percentile bootstrap over utterances.

    variant and base hold for each utterance its counts under one or more conditions (lookaheads), the same ones in both. An
    utterance is drawn with all its conditions, since errors on one recording are not independent (Bisani and Ney 2004).
    """
    added = np.array([sum(c.errors for c in v) - sum(c.errors for c in b) for v, b in zip(variant, base, strict=True)])
    words = np.array([sum(c.words for c in counts) for counts in base])
    if not words.sum():
        return Interval(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(SEED)
    draws = random.multinomial(len(words), np.full(len(words), 1 / len(words)), size=RESAMPLES)
    drawn_words = draws @ words
    differences = 100.0 * (draws @ added)[drawn_words > 0] / drawn_words[drawn_words > 0]
    lower, upper = np.percentile(differences, [2.5, 97.5])
    return Interval(100.0 * float(added.sum()) / float(words.sum()), float(lower), float(upper))


def wer_interval(utterances: Mapping[tuple[int, int], int], resamples: int = RESAMPLES) -> Interval:
    """Word error rate in percent, with its percentile bootstrap over utterances; NaN without a word.

    utterances: how many have so many (errors, words). Utterances with the same counts are one class of the draw, so that memory
    and time depend on the number of different counts: a million utterances of up to 40 words have some thousands.
    """
    counts = np.array(sorted(utterances), np.int64).reshape(-1, 2)
    of_each = np.array([utterances[errors, words] for errors, words in counts.tolist()], np.int64)
    if not (of_each @ counts[:, 1] if len(counts) else 0):
        return Interval(float("nan"), float("nan"), float("nan"))
    random, rates, block = np.random.default_rng(SEED), [], max(1, MOST_DRAWN // len(counts))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        errors, words = (random.multinomial(of_each.sum(), of_each / of_each.sum(), size=size) @ counts).T
        rates.append(100.0 * errors[words > 0] / words[words > 0])
    lower, upper = np.percentile(np.concatenate(rates), [2.5, 97.5])
    errors, words = of_each @ counts
    return Interval(100.0 * float(errors) / float(words), float(lower), float(upper))
