"""Scorers, by name. Each has a version, which changes with what it counts, and names the libraries that it counts with."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from nemoport.errors import UsageError, first_line
from nemoport.runtime import check_installed
from nemoport.score import WordCounts, count_units, count_words, is_unspaced, normalise
from nemoport.text import clipped

Count = Callable[[str, str, str], WordCounts]  # reference, hypothesis, language
SPACE = "\u2581"  # stands for the space between words, as a character; a symbol, which no normalised text has
LEADERBOARD = ("normalizer.py", "english_abbreviations.py")  # in the folder normalizer/ of its repository
MODULES = {"jiwer": "jiwer", "whisper-normalizer": "whisper_normalizer", "kaldialign": "kaldialign"}


@dataclass(frozen=True)
class Scorer:
    """How errors are counted. version: of what it counts; libraries: distribution -> version; languages: codes that it is for,
    without a region, none for all; unit: what is counted."""

    name: str
    version: str
    libraries: dict[str, str] = field(compare=False)
    count: Count = field(compare=False)
    unit: str = "words"
    languages: tuple[str, ...] = ()

    def check_language(self, language: str) -> None:
        """Raises UsageError for a language that it is not for. language: a code, "" where it is not known."""
        code = language.replace("_", "-").partition("-")[0].lower()
        if self.languages and code and code not in self.languages:
            raise UsageError(
                f"The scorer {self.name} is not for {clipped(language)}.",
                expected=", ".join(self.languages),
                found=clipped(language),
                todo="choose another scorer",
            )


def scorer(name: str, leaderboard: Path | None = None) -> Scorer:
    """Returns a scorer by its name, one of SCORERS. leaderboard: a clone of the repository huggingface/open_asr_leaderboard,
    whose code `open-asr` runs. Raises UsageError where it, or a package, is not there."""
    if name not in SCORERS:
        raise UsageError("There is no such scorer.", expected=", ".join(SCORERS), found=clipped(name), todo="choose one")
    return SCORERS[name](leaderboard)


def _wer(_: Path | None) -> Scorer:
    return Scorer("wer", "1", _libraries("jiwer"), count_words)


def _cer(_: Path | None) -> Scorer:
    def count(reference: str, hypothesis: str, language: str) -> WordCounts:
        return count_units(*(_characters(text, language) for text in (reference, hypothesis)))

    return Scorer("cer", "1", _libraries("jiwer"), count, "characters")


def _characters(text: str, language: str) -> str:
    return " ".join(normalise(text).replace(" ", "" if is_unspaced(language) else SPACE))


def _whisper_english(_: Path | None) -> Scorer:
    libraries = _libraries("whisper-normalizer", "jiwer")
    from whisper_normalizer.english import EnglishTextNormalizer

    return Scorer("whisper-english", "1", libraries, _counted(EnglishTextNormalizer()), languages=("en",))


def _whisper_basic(_: Path | None) -> Scorer:
    libraries = _libraries("whisper-normalizer", "jiwer")
    from whisper_normalizer.basic import BasicTextNormalizer

    spaced, unspaced = _counted(BasicTextNormalizer()), _counted(BasicTextNormalizer(split_letters=True))

    def count(reference: str, hypothesis: str, language: str) -> WordCounts:
        return (unspaced if is_unspaced(language) else spaced)(reference, hypothesis, language)

    return Scorer("whisper-basic", "1", libraries, count)


def _counted(normaliser: Callable[[str], str]) -> Count:
    def count(reference: str, hypothesis: str, _: str) -> WordCounts:
        return count_units(*(" ".join(normaliser(text).split()) for text in (reference, hypothesis)))

    return count


def _open_asr(leaderboard: Path | None) -> Scorer:
    """The leaderboard's own normaliser, and its count of errors, in which words that are only joined or divided are none."""
    libraries = _libraries("kaldialign")
    files = [leaderboard / "normalizer" / name for name in LEADERBOARD] if leaderboard else []
    if not files or not all(file.is_file() for file in files):
        raise UsageError(
            "The scorer open-asr runs the Open ASR Leaderboard's own code, which is no package.",
            expected=f"a clone with normalizer/{LEADERBOARD[0]} and normalizer/{LEADERBOARD[1]}",
            found=str(leaderboard) if leaderboard else "none named",
            todo="git clone https://github.com/huggingface/open_asr_leaderboard, then --leaderboard FOLDER",
        )
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
    normaliser = _leaderboards(files[0].parent, digest)
    from kaldialign import batch_error_rate

    def count(reference: str, hypothesis: str, _: str) -> WordCounts:
        one, other = (tuple(normaliser(text).split()) for text in (reference, hypothesis))
        found = batch_error_rate([one], [other], merge_compounds=True)
        return WordCounts(*(int(found[name]) for name in ("ref_len", "sub", "del", "ins")))

    return Scorer("open-asr", f"sha256:{digest}", libraries, count, languages=("en",))


@cache
def _leaderboards(folder: Path, digest: str) -> Callable[[str], str]:
    """Loads its EnglishTextNormalizer, without what its package imports beside. Raises UsageError."""
    package = ModuleType(f"nemoport_open_asr_{digest}")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    try:
        return import_module(f"{package.__name__}.normalizer").EnglishTextNormalizer()
    except Exception as error:  # what another version of it raises
        found, todo = f"{type(error).__name__}: {first_line(error)}", "check out another version of it"
        expected = "normalizer.py with a class EnglishTextNormalizer"
        raise UsageError(f"{folder} cannot be used.", expected=expected, found=clipped(found), todo=todo) from error


SCORERS: dict[str, Callable[[Path | None], Scorer]] = {
    "wer": _wer,
    "cer": _cer,
    "whisper-english": _whisper_english,
    "whisper-basic": _whisper_basic,
    "open-asr": _open_asr,
}


def _libraries(*names: str) -> dict[str, str]:
    check_installed("Scoring", tuple(MODULES[name] for name in names), "evaluate")
    return {name: version(name) for name in names}
