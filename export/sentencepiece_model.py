"""What of a SentencePiece model decides how its pieces are spelled, read from its bytes without the library; and such bytes
written from pieces.

A model is a protobuf message (google/sentencepiece, src/sentencepiece_model.proto). A checkpoint may come from a stranger:
nothing here takes more memory or time than the bytes that are there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nemoport.tokens import BYTE_PIECE, UNKNOWN, UNKNOWN_TEXT, SpellingRule

NORMAL, UNKNOWN_TYPE, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece.Type
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5  # fields of ModelProto
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK, _UNK_ID, _UNK_SURFACE = 3, 4, 35, 40, 44  # of TrainerSpec
_ABSENT_IDS = (41, 42, 43)  # of TrainerSpec: begin, end and padding
_BPE = 2  # TrainerSpec.ModelType
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


def write_model(pieces: Sequence[str], types: Sequence[int], scores: Sequence[float], charsmap: bytes) -> bytes:
    """Writes a model that merges pairs of pieces in the order of their scores, the highest first.

    types, scores: of each piece, which among pieces of other types than NORMAL have no effect; charsmap: the compiled table of
    characters that are replaced before a text is split, or empty.
    """
    trainer = {_MODEL_TYPE: _BPE, _VOCAB_SIZE: len(pieces), _BYTE_FALLBACK: int(BYTE in types)}
    trainer |= {_UNK_ID: types.index(UNKNOWN_TYPE), **dict.fromkeys(_ABSENT_IDS, -1)}
    normalizer = _written(_CHARSMAP, charsmap) if charsmap else b""
    return b"".join(
        (
            *(
                _written(_PIECES, _written(1, piece.encode()) + _written(2, score) + _written(3, kind))
                for piece, kind, score in zip(pieces, types, scores, strict=True)
            ),
            _written(_TRAINER, b"".join(_written(field, value) for field, value in trainer.items())),
            _written(_NORMALIZER, normalizer),
        )
    )


def _written(field: int, value: bytes | int | float) -> bytes:
    """The bytes of a field."""
    if isinstance(value, bytes):
        return _written_varint(field << 3 | _BYTES) + _written_varint(len(value)) + value
    if isinstance(value, float):
        return _written_varint(field << 3 | _FIXED32) + struct.pack("<f", value)
    return _written_varint(field << 3 | _VARINT) + _written_varint(value % (1 << 64))


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))


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
