"""Hotwords: phrases that a beam search favours, matched on the text that the tokens spell.

Contextual biasing by shallow fusion (Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual Biasing", Interspeech). It
usually matches one segmentation of a phrase into tokens; here any segmentation matches, so the boost of a path depends on
its text alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nemoport.errors import UsageError
from nemoport.tokens import BYTE_PIECE, WORD_START, is_special

Match = tuple[int, ...]  # nodes of the prefix tree that the end of the text so far matches
DEFAULT_BOOST = 1.5  # log score a token
MOST_BOOST = 1000.0
REACH = 6.0  # a boost lifts no token that is less likely than the best one by more, in log score, however high it is
_GAINS_KEPT = 256  # states whose boosts of all tokens are kept: 26 MB at 13087 tokens


class Hotwords:
    """A prefix tree of phrases over the UTF-8 bytes of their lower-case text, with a space before it: a phrase begins at
    the start of a word.

    A phrase in the text adds `boost` to the score for each token of its shortest spelling, whatever tokens spell it; its
    beginning adds its part of that. The boost is subtracted again when the text continues otherwise, and kept once the phrase is
    complete and its last word ends: at a space, at punctuation, at the end. So "art" adds nothing to "artist". A phrase that
    begins another one, as "new" begins "new york", has its boost beside the other's.
    """

    start: Match = ()

    def __init__(self, pieces: Sequence[str], phrases: Sequence[str], boost: float = DEFAULT_BOOST):
        """pieces: of tokens.txt, by id; boost: natural logarithm. Raises UsageError for no phrase, an empty one, or one that
        the pieces cannot spell."""
        if not 0 < boost <= MOST_BOOST:
            expected = f"a number above 0, at most {MOST_BOOST:g}"
            raise UsageError("No boost for hotwords.", expected=expected, found=f"{boost:g}", todo="try 1.5")
        if not phrases:
            raise UsageError("No hotwords.", expected="one phrase or more", found="none", todo="name one, or no boost")
        self._spelled = [_spelled(piece) for piece in pieces]
        self._vocabulary = _Vocabulary(self._spelled)
        self._children: list[dict[int, int]] = [{}]
        self._value, self._whole = [0.0], [False]
        known = set(self._spelled)
        for phrase in phrases:
            text = _normal(phrase)
            fewest = _fewest_pieces(text, known)
            if text == b" " or fewest[-1] is None:
                raise _unusable(phrase, known)
            self._add(text, fewest, boost)
        self.gains = lru_cache(_GAINS_KEPT)(self._gains)

    def _add(self, text: bytes, fewest: list[int | None], boost: float) -> None:
        node = 0
        for end, byte in enumerate(text, 1):
            if byte not in self._children[node]:
                self._children[node][byte] = len(self._children)
                self._children.append({})
                self._value.append(0.0)
                self._whole.append(False)
            node = self._children[node][byte]
            # A beginning that needs many pieces has no more than the phrase that it becomes. A space alone begins any word.
            least = min(count for count in fewest[end:] if count is not None) if end > 1 else 0
            self._value[node] = max(self._value[node], boost * least)
        self._whole[node] = True

    def advance(self, match: Match, token: int) -> Match:
        """Returns the match after one more token."""
        for byte in self._spelled[token]:
            match, _ = self._read(match, byte)
        return match

    def choose(self, match: Match, scores: np.ndarray) -> int:
        """Returns the token that greedy decoding emits where blank is not the best, of scores f32 [V]: the best one, with the
        boost of what continues a hotword.

        A boost never turns blank into a token, as in NeMo's greedy decoding with a boosting tree, so however high it is it adds
        no words to silence and repeats none. What breaks a phrase off costs nothing here: greedy decoding cannot take back the
        tokens before.
        """
        gains = np.where(scores >= scores.max() - REACH, self.gains(match)[:-1], 0.0)
        return int((scores + np.maximum(gains, 0.0)).argmax())

    def end(self, match: Match) -> float:
        """Returns what the end of the text adds to the score: the boost of a phrase that is not complete is subtracted."""
        return self._kept(match) - self._pending(match)

    def _gains(self, match: Match) -> np.ndarray:
        """Returns what each token, and blank, adds to the score: f64 [V + 1], below 0 where a match breaks off."""
        gains = np.zeros(len(self._spelled) + 1)
        walk = [(self._vocabulary.root, match, -self._pending(match))]
        while walk:
            node, now, earned = walk.pop()
            if not now and not node.has_space:  # nothing matches, and no word begins in any of these
                gains[node.below] = earned
                continue
            gains[node.here] = earned + self._pending(now)
            for byte, child in node.children.items():
                following, kept = self._read(now, byte)
                walk.append((child, following, earned + kept))
        gains[self._vocabulary.root.here] = 0.0  # tokens that spell nothing
        return gains

    def _read(self, match: Match, byte: int) -> tuple[Match, float]:
        """Returns the match after one more byte, and the boost that is kept for good because a phrase ends before it."""
        kept = 0.0 if byte >= 0x80 or chr(byte).isalnum() else self._kept(match)
        nodes = match + (0,) if byte == ord(" ") else match
        return tuple(self._children[node][byte] for node in nodes if byte in self._children[node]), kept

    def _pending(self, match: Match) -> float:
        return max((self._value[node] for node in match), default=0.0)

    def _kept(self, match: Match) -> float:
        return max((self._value[node] for node in match if self._whole[node]), default=0.0)


class _Node:
    """A node of the vocabulary's prefix tree."""

    def __init__(self):
        self.children: dict[int, _Node] = {}
        self.here: list[int] = []  # tokens that end here
        self.below: list[int] = []  # these, and all that go on from here
        self.has_space = False  # any of these tokens has a space behind here


class _Vocabulary:
    """The tokens as a prefix tree, so that all tokens below a node where nothing matches are scored at once."""

    def __init__(self, spelled: Sequence[bytes]):
        self.root = _Node()
        for token, text in enumerate(spelled):
            node = self.root
            for at, byte in enumerate(text):
                node.below.append(token)
                node.has_space |= b" " in text[at:]
                node = node.children.setdefault(byte, _Node())
            node.below.append(token)
            node.here.append(token)


def _spelled(piece: str) -> bytes:
    """Returns the bytes that a piece spells, in lower case, so that case does not matter. Tags and the unknown piece are a byte
    that no phrase has."""
    if byte := BYTE_PIECE.fullmatch(piece):
        return bytes([int(byte[1], 16)])
    if is_special(piece):
        return b"\0"
    return piece.replace(WORD_START, " ").lower().encode()


def _normal(phrase: str) -> bytes:
    """Normalises a phrase as SentencePiece usually does (NFKC, single spaces), in lower case, with a space before it."""
    text = f" {' '.join(unicodedata.normalize('NFKC', phrase).lower().split())}"
    return text.encode(errors="surrogatepass")  # half a pair, as a command line may have it, which no piece spells


def _fewest_pieces(text: bytes, known: set[bytes]) -> list[int | None]:
    """Returns the least number of pieces that spell each beginning of the text, by its length; None where no piece ends."""
    longest = max(map(len, known), default=0)
    fewest: list[int | None] = [0]
    for end in range(1, len(text) + 1):
        starts = range(max(0, end - longest), end)
        counts = [count + 1 for i in starts if (count := fewest[i]) is not None and text[i:end] in known]
        fewest.append(min(counts, default=None))
    return fewest


def _unusable(phrase: str, known: set[bytes]) -> UsageError:
    """Returns the error for a phrase that the pieces cannot spell."""
    text = _normal(phrase).decode(errors="surrogatepass").strip()
    if not text:
        return UsageError("A hotword is empty.", expected="a word or a phrase", found=repr(phrase), todo="leave it out")
    missing = [c for c in dict.fromkeys(text) if not any(c.encode(errors="surrogatepass") in piece for piece in known)]
    return UsageError(
        f"This model's vocabulary cannot spell the hotword {phrase!r}.",
        expected="characters of its tokens (tokens.txt)",
        found=f"{', '.join(map(repr, missing))}, which no token has" if missing else "no sequence of tokens that spells it",
        todo="spell the phrase as the model would write it",
    )
