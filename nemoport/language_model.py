"""N-gram language models of words for CTC beam search: ARPA files, read by KenLM (Heafield 2011, WMT).

KenLM's parser is C++, so a file is checked before: its kind, its size, and that it has no more n-grams than it has room for,
because KenLM reserves memory by those numbers. Only text is read: KenLM's binary files are mapped into memory as they are.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.text import clipped
from nemoport.tokens import BYTE_PIECE, WORD_START, is_special

LARGEST_WEIGHT = 100.0
MOST_BYTES, MOST_WORDS = 4 << 30, 4_000_000  # of an ARPA file
LARGEST_ORDER = 6  # that KenLM is built for
LEAST_BYTES = 6  # of the line of an n-gram: a probability, a tab, a word and the end of the line
LONGEST_LINE = 1 << 16
_COUNT = re.compile(rb"ngram ([1-9])=([0-9]{1,12})\s*")
_WORDS_KEPT = 1 << 16


@dataclass(frozen=True)
class ArpaFile:
    """A language model to open, and how much it counts for.

    weight: of the natural logarithm of a word's probability; word_bonus: what each word adds, which makes up for short texts
    being likelier. Raises UsageError for a weight or bonus out of bounds.
    """

    path: Path
    weight: float = 0.5
    word_bonus: float = 1.5

    def __post_init__(self):
        for name, least in (("weight", 0.0), ("word_bonus", -LARGEST_WEIGHT)):
            if not least <= (value := getattr(self, name)) <= LARGEST_WEIGHT:
                expected = f"{least:g} or more, at most {LARGEST_WEIGHT:g}"
                what = f"A language model cannot have the {name.replace('_', ' ')} {value:g}."
                raise UsageError(what, expected=expected, found=f"{value:g}", todo="leave it out")


@dataclass(frozen=True, slots=True)
class Context:
    """Where a path stands in a text: KenLM's state behind its complete words, their score, and the UTF-8 of the next word so
    far. score: what the text counts for as it is."""

    state: Any
    complete: float = 0.0
    word: bytes = b""
    score: float = 0.0


class LanguageModel:
    """Scores the words that tokens spell: weight * log p(word | words before) + word bonus.

    A word is scored when the next one begins; as an unknown one before, once no word of the file begins as it does. Else a path
    that runs two words together would be charged for neither, and a narrow beam would keep nothing else. A word that the file
    lacks is looked up in lower case and without punctuation, so that plain words serve a recognizer that writes both.
    """

    def __init__(self, file: ArpaFile, pieces: Sequence[str]):
        """pieces: of tokens.txt, by id. Raises UsageError without KenLM, ArtifactError for a file that cannot be used."""
        self._file, self._spelled = file, [_spelled(piece) for piece in pieces]
        self._words = read_words(file.path)
        self._kenlm, self._model = _opened(file.path)
        first = self._kenlm.State()
        self._model.BeginSentenceWrite(first)
        self.start = Context(first)
        self._scored = lru_cache(_WORDS_KEPT)(self._score)
        self._begins = lru_cache(_WORDS_KEPT)(self._begins_a_word)

    def advance(self, context: Context, token: int) -> Context:
        """Returns the context after one more token."""
        word, *begun = (context.word + self._spelled[token]).split(b" ")
        state, complete = context.state, context.complete
        for following in begun:
            gained, state = self._scored(state, word)
            complete, word = complete + gained, following
        return Context(state, complete, word, complete if self._begins(word) else complete + self._scored(state, word)[0])

    def end(self, context: Context) -> float:
        """Returns the score of the text if it ended here, with the word that is not complete."""
        return context.complete + self._scored(context.state, context.word)[0]

    def _score(self, state: Any, word: bytes) -> tuple[float, Any]:
        text = word.decode(errors="replace")
        known = text if text in self._model else _plain(text)
        if not known:  # punctuation alone
            return 0.0, state
        after = self._kenlm.State()
        log10 = self._model.BaseScore(state, known, after)
        if not math.isfinite(log10):
            raise _unusable(self._file.path, f"{log10} as the log probability of {clipped(repr(known))}")
        return self._file.weight * math.log(10) * log10 + self._file.word_bonus, after

    def _begins_a_word(self, word: bytes) -> bool:
        for form in (word, _plain(word.decode(errors="replace")).encode()):
            at = bisect_left(self._words, form)
            if at < len(self._words) and self._words[at].startswith(form):
                return True
        return False


def _plain(word: str) -> str:
    """Returns a word in lower case, without the punctuation at its ends."""
    return re.sub(r"^\W+|\W+$", "", word).lower()


def _spelled(piece: str) -> bytes:
    """Returns the bytes that a piece spells: none for tags and the like."""
    if byte := BYTE_PIECE.fullmatch(piece):
        return bytes([int(byte[1], 16)])
    return b"" if is_special(piece) else piece.replace(WORD_START, " ").encode()


def _opened(path: Path) -> tuple[Any, Any]:
    """Returns KenLM's module and its model of a file that `read_words` has checked."""
    try:
        import kenlm
    except ImportError as error:
        found, todo = str(error), "pip install 'nemoport[lm]'"
        raise UsageError("A language model needs KenLM.", expected="the module kenlm", found=found, todo=todo) from error
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm, kenlm.Model(str(path), config)
    except (OSError, RuntimeError, MemoryError, ValueError) as error:  # a ValueError where its message is not UTF-8
        raise _unusable(path, first_line(error)) from error


def read_words(path: Path) -> list[bytes]:
    """Checks that a file is ARPA text that KenLM takes and that has room for the n-grams that its head counts. Returns its words,
    in UTF-8, sorted. Raises ArtifactError."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _unusable(path, f"{size} bytes, more than {MOST_BYTES}")
        with open(path, "rb") as stream:
            lines = iter(lambda: stream.readline(LONGEST_LINE), b"")
            counts = _counts(path, lines)
            if sum(counts) * LEAST_BYTES > size:
                raise _unusable(path, f"a head that counts {sum(counts)} n-grams, in {size} bytes")
            if counts[0] > MOST_WORDS:
                raise _unusable(path, f"{counts[0]} words, more than {MOST_WORDS}")
            if next((line for line in lines if line.strip()), b"").strip() != b"\\1-grams:":
                raise _unusable(path, "no 1-grams behind its head")
            return sorted(line.split(b"\t")[1].strip() for line in islice(lines, counts[0]) if b"\t" in line)
    except OSError as error:
        raise _unusable(path, str(error)) from error


def _counts(path: Path, lines) -> list[int]:
    """Reads the head of an ARPA file: how many n-grams it has, by their order."""
    first = next(lines, b"")
    if first.strip() != b"\\data\\":
        raise _unusable(path, f"a file that begins with {clipped(repr(first[:20]))}")
    counts = []
    for line in lines:
        if not line.strip():
            break
        counted = _COUNT.fullmatch(line)
        if not counted or int(counted[1]) != len(counts) + 1:
            raise _unusable(path, f"{clipped(repr(line))} in its head")
        counts.append(int(counted[2]))
    if not 1 <= len(counts) <= LARGEST_ORDER:
        raise _unusable(path, f"order {len(counts)}")
    return counts


def _unusable(path: Path, found: str) -> ArtifactError:
    expected = f"an ARPA text file of order 1 to {LARGEST_ORDER}, neither compressed nor KenLM's binary"
    todo = "name another file; KenLM's lmplz and reference/ngram.py write ARPA"
    return ArtifactError(f"{path} cannot be used as a language model.", expected=expected, found=found, todo=todo)
