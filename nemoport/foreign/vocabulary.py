"""Vocabularies in the forms that consumers read: a piece a line, JSON, tokenizer.json, a SentencePiece model."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError, first_line
from nemoport.external_data import fields
from nemoport.foreign.listing import File
from nemoport.text import lines

BLANKS = ("<blk>", "<blank>", "<b>", "[blank]", "<|blank|>")  # what consumers call it, in small letters
LINES, JSON, TOKENIZER, SENTENCEPIECE = "lines", "json", "tokenizer.json", "SentencePiece"
_MOST_BYTES = 64 << 20
_MOST_PIECES = 1 << 20


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id. form: how the file holds them; blanks: ids of pieces that are called a blank."""

    name: str
    form: str
    pieces: tuple[str, ...]

    @property
    def blanks(self) -> list[int]:
        return [i for i, piece in enumerate(self.pieces) if piece.lower() in BLANKS]


def form_of(name: str) -> str:
    """Returns the form of a vocabulary's file by its name, "" for any other file."""
    last = name.rpartition("/")[2].lower()
    if last == "tokenizer.json":
        return TOKENIZER
    if last in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        return SENTENCEPIECE
    stem, _, suffix = last.rpartition(".")
    if suffix in ("txt", "json") and stem.endswith(("tokens", "vocab", "vocabulary")):
        return LINES if suffix == "txt" else JSON
    return ""


def read_vocabulary(file: File) -> Vocabulary:
    """Reads a vocabulary of any form. Raises ArtifactError."""
    form = form_of(file.name)
    try:
        if file.path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        pieces = _sentencepiece(file.path) if form == SENTENCEPIECE else _text(form, file.path.read_bytes().decode())
    except (OSError, ValueError, IndexError, RecursionError) as error:
        raise ArtifactError(
            f"{file.name} is no vocabulary.", expected="pieces by id", found=first_line(error), todo="download or export it again"
        ) from error
    return Vocabulary(file.name, form, pieces)


def _text(form: str, text: str) -> tuple[str, ...]:
    if form == LINES:
        return tuple(_piece(number, line) for number, line in enumerate(lines(text.removeprefix("\ufeff"))))
    raw = json.loads(text)
    if form == JSON:
        return _by_id(raw)
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), dict):
        raise ValueError("no section model")
    vocab, added = raw["model"].get("vocab"), raw.get("added_tokens") or []
    pairs = enumerate(one[0] for one in vocab) if isinstance(vocab, list) else [(i, piece) for piece, i in dict(vocab).items()]
    return _ordered([*pairs, *((one["id"], one["content"]) for one in added if isinstance(one, dict))])


def _piece(number: int, line: str) -> str:
    """The piece of a line, with its id behind it or without."""
    piece, _, index = line.rpartition(" ")
    if not piece:
        piece, _, index = line.rpartition("\t")
    return piece if index == str(number) else line


def _by_id(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, list):
        return _ordered(enumerate(raw))
    if not isinstance(raw, dict):
        raise ValueError("neither a list nor an object")
    if all(isinstance(piece, str) for piece in raw.values()):
        return _ordered((int(i), piece) for i, piece in raw.items())
    return _ordered((i, piece) for piece, i in raw.items())


def _ordered(pairs: Iterable[tuple[Any, Any]]) -> tuple[str, ...]:
    found = dict(pairs)
    if not found or not all(isinstance(i, int) and isinstance(piece, str) for i, piece in found.items()):
        raise ValueError("something else than pieces and ids")
    if min(found) < 0 or max(found) >= min(_MOST_PIECES, 2 * len(found) + 1024):
        raise ValueError("ids that are no numbering")
    return tuple(found.get(i, "") for i in range(max(found) + 1))


def _sentencepiece(path: Path) -> tuple[str, ...]:
    """Pieces of a SentencePiece model: field 1 of ModelProto, and of each its field 1."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = []
        for number, wire, span in fields(data, (0, len(data))):
            if number == 1 and wire == 2:
                text = next((data[start:end] for inner, kind, (start, end) in fields(data, span) if (inner, kind) == (1, 2)), b"")
                found.append(text.decode())
    if not found:
        raise ValueError("no piece")
    return tuple(found)
