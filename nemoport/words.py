"""Words and segments of a transcript, with times and confidence, as NeMo's `timestamps=True` defines them.

A word is what stands between spaces in the text. It starts with its first token's frame and ends with its last token's: a token
of a TDT model lasts as long as the model predicts, one of a CTC model as long as its run of equal frames, one of an RNNT model a
frame. A punctuation mark belongs to the word before it; a TDT or CTC model may emit one long after that word, so it takes no time
there. Rules as NeMo's `get_words_offsets`,
`_refine_timestamps_tdt` and `get_segment_offsets`. Where a mark follows a space that is a token of its own, it is a word, as in
the text. Marks that open a phrase, as ¿, join the word behind them; NeMo's the one before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nemoport.events import Event
from nemoport.long_audio import Timed
from nemoport.spec import CTC, ModelSpec
from nemoport.tokens import LANGUAGE_TAG, WORD_START, Spelling

SENTENCE_ENDS = (".", "?", "!")  # NeMo's `segment_seperators`
_NOT_TEXT = re.compile(r"\[.*\]|<.*>|##.*|\u2581.*|\s*")  # pieces that NeMo takes no punctuation from


@dataclass(frozen=True)
class Word:
    """A word. start, end: seconds from the recording's start; confidence: the least of its tokens', 0 to 1; is_last: whether an
    event of the model's ended the utterance behind it (nemoport/events.py)."""

    text: str
    start: float
    end: float
    confidence: float
    is_last: bool = False


@dataclass(frozen=True)
class Segment:
    """Words that belong together: a sentence, or what stands between two pauses or events. event: the one that ended an utterance
    of a live stream, None where a pause did, its length, or the end of the audio."""

    words: tuple[Word, ...]
    event: Event | None = None

    @property
    def text(self) -> str:
        """The words, with spaces between."""
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        """Seconds from the recording's start."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """Seconds from the recording's start."""
        return self.words[-1].end

    def shift(self, seconds: float) -> Segment:
        """Returns the segment with times that are later by `seconds`."""
        words = tuple(replace(w, start=w.start + seconds, end=w.end + seconds) for w in self.words)
        return Segment(words, self.event and replace(self.event, time=self.event.time + seconds))


def punctuation_of(pieces: Iterable[str]) -> frozenset[str]:
    """Returns the marks that belong to the word before them: punctuation in pieces that are not a word's start, a tag or special,
    as NeMo takes it from a vocabulary, but for marks that open a phrase."""
    plain = (piece for piece in pieces if not _NOT_TEXT.fullmatch(piece))
    return frozenset(char for piece in plain for char in piece if _closes(char))


def _closes(char: str) -> bool:
    category = unicodedata.category(char)
    return category.startswith("P") and category not in ("Ps", "Pi") and char not in "\u00bf\u00a1"


class WordTimes:
    """Puts the tokens of one stream together to words, as they come, at a cost that does not grow with its length."""

    def __init__(self, pieces: Sequence[str], punctuation: frozenset[str], spec: ModelSpec):
        """pieces: of tokens.txt, by id; punctuation: of `punctuation_of`."""
        self._pieces, self._punctuation, self._spec = pieces, punctuation, spec
        self._events = spec.events.kinds if spec.events else {}
        self._spelling = Spelling(pieces)
        self._last_end = 0.0  # of the token before
        self._word: Word | None = None  # not complete

    @property
    def incomplete(self) -> str:
        """Text of the last word, which may go on."""
        return self._text(self._word.text) if self._word else ""

    def feed(self, timed: Timed) -> list[Word]:
        """Takes the next tokens and returns the words that they complete: the last one waits for a token behind it."""
        return list(self._feed(timed))

    def finish(self) -> list[Word]:
        """Returns the last word, if there is one."""
        return list(self._complete(self._spelling.finish()))

    def _feed(self, timed: Timed) -> Iterator[Word]:
        frame = self._spec.frame_seconds
        lasting = bool(self._spec.decoding.durations) or self._spec.head == CTC
        for token, start, duration, confidence in zip(
            timed.tokens, timed.seconds, timed.durations, timed.confidences, strict=True
        ):
            piece = self._pieces[token].removeprefix(WORD_START)
            text = self._spelling.feed([token])
            if token in self._events:
                yield from self._complete(text, is_last=True)
                continue
            if self._spec.prompt and LANGUAGE_TAG.fullmatch(piece):
                text = LANGUAGE_TAG.sub("", text)  # what is left are bytes before it that were no character
                if not text:
                    continue
            elif text.count(" ") < self._pieces[token].count(WORD_START):
                text = " " + text  # the text's first spaces go, but a word begins
            parts = text.split(" ")  # each behind the first begins a word
            mark = piece in self._punctuation
            if mark and lasting and self._word:
                start, duration = self._last_end, 0.0
            end = self._last_end = start + (duration if lasting else frame)
            if self._word and mark and self._word.text:
                parts = ["".join(parts)]
            if self._word and (parts[0] or len(parts) == 1):
                text, confidence_so_far = self._word.text + parts[0], min(self._word.confidence, confidence)
                self._word = Word(text, self._word.start, end, confidence_so_far)
            for part in parts[1:] if self._word else parts:
                yield from self._complete("")
                self._word = Word(part, start, end, confidence)

    def _complete(self, rest: str, *, is_last: bool = False) -> Iterator[Word]:
        if self._word and (text := self._text(self._word.text + rest)):
            yield replace(self._word, text=text, is_last=is_last)
        self._word = None

    def _text(self, text: str) -> str:
        return LANGUAGE_TAG.sub("", text) if self._spec.prompt else text


def words_of(timed: Timed, pieces: Sequence[str], punctuation: frozenset[str], spec: ModelSpec) -> tuple[Word, ...]:
    """Returns the words of a transcript. Arguments as of `WordTimes`."""
    words = WordTimes(pieces, punctuation, spec)
    return (*words.feed(timed), *words.finish())


def segments_of(words: Sequence[Word], pause_s: float = float("inf")) -> tuple[Segment, ...]:
    """Joins words to segments. One ends with a word that ends a sentence, or behind which an event does, and before a pause of
    `pause_s` seconds or more. NeMo looks for sentences alone by default."""
    segments: list[list[Word]] = []
    for word in words:
        before = segments[-1][-1] if segments else None
        if before is None or before.is_last or before.text.endswith(SENTENCE_ENDS) or word.start - before.end >= pause_s:
            segments.append([])
        segments[-1].append(word)
    return tuple(Segment(tuple(segment)) for segment in segments)
