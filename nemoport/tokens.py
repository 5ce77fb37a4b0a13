"""Decoding of token ids to text, equal to SentencePiece's, which is not needed at run time."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from nemoport.errors import ArtifactError
from nemoport.files import read_json
from nemoport.schema import CLOSED, Text, check, most, whole
from nemoport.text import clipped, has_controls, lines

WORD_START = "\u2581"  # SentencePiece writes a leading space as this
UNKNOWN = "<unk>"
UNKNOWN_TEXT = " \u2047 "  # what SentencePiece prints for it
SPELLING = "spelling.json"  # beside tokens.txt, of a tokenizer that does not spell in the usual way
LONGEST_PIECE = 256  # characters
MOST_BYTES = 64 << 20  # of tokens.txt
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_NO_CHARACTER = re.compile("[\udc80-\udcff]")
_SPECIAL_PIECE = re.compile(r"\s*<.+>|\[.+\]")
_BEFORE_TAG = re.compile(r"\s*(<[A-Za-z-]{0,5})?$")  # the end of a text that a tag may follow or complete
LANGUAGE_TAG = re.compile(r"\s*<([a-z]{2}-[A-Z]{2})>")  # what NeMo's RNNTDecoding.strip_lang_tags removes


_Ids = Annotated[tuple[Annotated[int, whole(0, 65_535)], ...], most(65_536)]


@dataclass(frozen=True)
class SpellingRule:
    """How SentencePiece spells pieces; the defaults are those of its usual models.

    silent: ids of control symbols, which spell nothing; events: ids of tokens that end an utterance (nemoport/events.py), which
    spell nothing either, whatever their type: each utterance is a text of its own, and a space stands between; plain: ids of
    pieces that look like a byte and stand for their own characters; unknown, unknown_text: the unknown piece, and what is spelled
    for it; leading_spaces: which go at the start of a text: all, one of each piece; one; or none.
    """

    __pydantic_config__: ClassVar = CLOSED

    silent: _Ids = ()
    events: _Ids = ()
    plain: _Ids = ()
    unknown: Text = UNKNOWN
    unknown_text: Text = UNKNOWN_TEXT
    leading_spaces: Literal["all", "one", "none"] = "all"


class Pieces(list[str]):
    """The pieces of a vocabulary by id, with the rule that they are spelled by."""

    def __init__(self, pieces: Iterable[str], rule: SpellingRule):
        super().__init__(pieces)
        self.rule = rule


def read_tokens(path: Path) -> Pieces:
    """Reads tokens.txt: one `piece id` a line, ids ascending from 0; and spelling.json beside it, where there is one. Raises
    ArtifactError."""
    pieces, todo = [], "export again, or download it again"
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        rows = lines(content.decode())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read.", expected="the artifact's tokens.txt, in UTF-8", found=str(error), todo=todo
        ) from error
    for number, line in enumerate(rows):
        piece, _, index = line.rpartition(" ")
        if index != str(number) or not is_piece(piece):
            raise ArtifactError(
                f"{path}, line {number + 1} is not a token.",
                expected=f"a piece, a space and {number}",
                found=clipped(repr(line)),
                todo=todo,
            )
        pieces.append(piece)
    rule = path.with_name(SPELLING)
    return Pieces(pieces, check(SpellingRule, read_json(rule, todo), str(rule), todo) if rule.exists() else SpellingRule())


def is_piece(piece: object) -> bool:
    """Whether a value is a text that tokens.txt and a terminal can hold: short, and without control characters."""
    return isinstance(piece, str) and 0 < len(piece) <= LONGEST_PIECE and not has_controls(piece)


def is_special(piece: str) -> bool:
    """Whether a piece is not text but a sign of its own: <unk>, [UNK], a language tag, a byte piece."""
    return bool(_SPECIAL_PIECE.fullmatch(piece.lstrip(WORD_START)))


def detokenize(pieces: Sequence[str], ids: Sequence[int]) -> str:
    """Joins pieces; word starts become spaces; byte pieces (`<0xE2>`) become UTF-8; leading spaces go, one a piece; events are
    no text."""
    spelling = Spelling(pieces)
    return spelling.feed(ids) + spelling.finish()


class Spelling:
    """Spells the tokens of a stream as they come, at a cost that does not grow with its length. All that `feed` and `finish`
    return is the text of `detokenize`, or without its language tags."""

    def __init__(self, pieces: Sequence[str], *, with_tags: bool = True):
        """pieces: of tokens.txt, by id; with_tags: whether language tags stay."""
        self._pieces, self._with_tags = pieces, with_tags
        self._rule = pieces.rule if isinstance(pieces, Pieces) else SpellingRule()
        self._silent, self._plain = frozenset(self._rule.silent), frozenset(self._rule.plain)
        self._events = frozenset(self._rule.events)
        self._spelled_any = self._ended = False  # whether there is text so far; whether an event stands behind it
        # A byte that is part of no character becomes a surrogate, so that each one is replaced, as SentencePiece does.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._keeps_space = self._rule.leading_spaces == "none"
        self._held = ""  # may become a tag, or stand before one

    def feed(self, ids: Iterable[int]) -> str:
        """Takes the next tokens and returns the text that later ones cannot change. Bytes of a character that is not complete
        wait, and so does what may belong to a tag."""
        text = self._held + "".join(map(self._apart, self._spelled(ids)))
        if self._with_tags:
            return text
        text = LANGUAGE_TAG.sub("", text)
        kept = len(text) - len(_BEFORE_TAG.search(text)[0])  # type: ignore[index]  # it matches "" everywhere
        self._held = text[kept:]
        return text[:kept]

    def finish(self) -> str:
        """Returns what waited."""
        return self._held + self._apart(self._decoded(b"", final=True))

    def _spelled(self, ids: Iterable[int]) -> Iterator[str]:
        for index in ids:
            if index in self._events:
                yield self._decoded(b"", final=True)
                self._keeps_space, self._ended = self._rule.leading_spaces == "none", self._spelled_any
                continue
            piece = self._pieces[index]
            byte = None if index in self._plain else BYTE_PIECE.fullmatch(piece)
            if byte:
                self._keeps_space = True
                yield self._decoded(bytes([int(byte[1], 16)]))
                continue
            yield self._decoded(b"", final=True)  # a character's bytes stand side by side
            if index not in self._silent:
                yield self._spelled_piece(piece)

    def _apart(self, text: str) -> str:
        """Returns the text with the space before it that divides it from the utterance before."""
        if not text:
            return ""
        space = " " if self._ended and not text.startswith(" ") else ""
        self._spelled_any, self._ended = True, False
        return space + text

    def _spelled_piece(self, piece: str) -> str:
        if piece == self._rule.unknown:
            text = self._rule.unknown_text
        else:
            text = (piece if self._keeps_space else piece.removeprefix(WORD_START)).replace(WORD_START, " ")
        self._keeps_space = self._keeps_space or bool(text) or self._rule.leading_spaces == "one"
        return text

    def _decoded(self, part: bytes, final: bool = False) -> str:
        return _NO_CHARACTER.sub("\ufffd", self._decoder.decode(part, final))


def split_tags(text: str) -> tuple[str, tuple[str, ...]]:
    """Returns the text without its language tags, and their languages in order: "Hallo. <de-DE>" gives "Hallo.", de-DE."""
    return LANGUAGE_TAG.sub("", text), tuple(LANGUAGE_TAG.findall(text))


def tag_tokens(pieces: Sequence[str]) -> dict[str, int]:
    """Returns language -> token id, of the pieces that are a language tag as a whole."""
    tags = {piece.lstrip(WORD_START): index for index, piece in enumerate(pieces)}
    return {match[1]: index for tag, index in tags.items() if (match := LANGUAGE_TAG.fullmatch(tag))}
