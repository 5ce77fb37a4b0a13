"""What of a SentencePiece model decides how its pieces are spelled, read from its bytes without the library.

A model is a protobuf message (google/sentencepiece, src/sentencepiece_model.proto). A checkpoint may come from a stranger:
nothing here takes more memory or time than the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nemoport.tokens import BYTE_PIECE, UNKNOWN, UNKNOWN_TEXT, SpellingRule

NORMAL, UNKNOWN_TYPE, CONTROL, BYTE = 1, 2, 3, 6  # SentencePiece.Type
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5  # fields of ModelProto
_UNK_SURFACE = 44  # of TrainerSpec
_CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 2, 3, 4  # of NormalizerSpec
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class SentencePieceModel:
    """pieces: (text, type) by id; unk_surface: text of the unknown piece; denormalizes: whether the text is changed further."""

    pieces: tuple[tuple[str, int], ...]
    unk_surface: str = UNKNOWN_TEXT
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    denormalizes: bool = False

    def rule(self) -> SpellingRule:
        """How SentencePiece spells the pieces (SentencePieceProcessor::Decode)."""
        unknown = next((text for text, kind in self.pieces if kind == UNKNOWN_TYPE), UNKNOWN)
        leading = "all" if self.remove_extra_whitespaces else "one" if self.add_dummy_prefix else "none"
        return SpellingRule(
            silent=tuple(i for i, (_, kind) in enumerate(self.pieces) if kind == CONTROL),
            plain=tuple(i for i, (text, kind) in enumerate(self.pieces) if kind != BYTE and BYTE_PIECE.fullmatch(text)),
            unknown=unknown,
            unknown_text=self.unk_surface,
            leading_spaces=leading,
        )


def read_model(content: bytes) -> SentencePieceModel:
    """Reads the bytes of tokenizer.model. Raises ValueError for what is no such message."""
    pieces, found = [], {}
    for field, value in _fields(content):
        if field == _PIECES:
            piece = dict(_fields(_message(value)))
            pieces.append((_message(piece.get(1, b"")).decode(), _number(piece.get(3, NORMAL))))
        elif field == _TRAINER:
            trainer = dict(_fields(_message(value)))
            if _UNK_SURFACE in trainer:
                found["unk_surface"] = _message(trainer[_UNK_SURFACE]).decode()
        elif field == _NORMALIZER:
            normalizer = dict(_fields(_message(value)))
            found["add_dummy_prefix"] = bool(_number(normalizer.get(_ADD_DUMMY_PREFIX, 1)))
            found["remove_extra_whitespaces"] = bool(_number(normalizer.get(_REMOVE_EXTRA_WHITESPACES, 1)))
        elif field == _DENORMALIZER:
            found["denormalizes"] = bool(_message(dict(_fields(_message(value))).get(_CHARSMAP, b"")))
    return SentencePieceModel(tuple(pieces), **found)


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yields (number, value) of each field of a message."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(content, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(content, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if size > len(content) - at:
            raise ValueError("a field that ends behind its message")
        yield field, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")


def _message(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _number(value: bytes | int) -> int:
    if isinstance(value, bytes):
        raise ValueError("a message where a number is expected")
    return value
