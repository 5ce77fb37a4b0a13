"""Decoding of token ids to text, equal to SentencePiece's, which is not needed at run time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nemoport.errors import ArtifactError

WORD_START = "\u2581"  # SentencePiece writes a leading space as this
UNKNOWN = "<unk>"
LANGUAGE_TAG = re.compile(r"\s*<([a-z]{2}-[A-Z]{2})>")  # what NeMo's RNNTDecoding.strip_lang_tags removes


def read_tokens(path: Path) -> list[str]:
    """Reads tokens.txt: one `piece id` a line, ids ascending from 0. Raises ArtifactError."""
    pieces = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read.", expected="the artifact's tokens.txt", found=str(error), todo="export again"
        ) from error
    for number, line in enumerate(lines):
        piece, _, index = line.rpartition(" ")
        if index != str(number):
            raise ArtifactError(
                f"{path}, line {number + 1} is not a token.",
                expected=f"a piece, a space and {number}",
                found=repr(line),
                todo="export again",
            )
        pieces.append(piece)
    return pieces


def detokenize(pieces: Sequence[str], ids: Sequence[int]) -> str:
    """Joins pieces; word starts become spaces; byte pieces (`<0xE2>`) become UTF-8; leading spaces go, one a piece."""
    out = bytearray()
    for index in ids:
        piece = pieces[index]
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            out.append(int(piece[3:5], 16))
        elif piece == UNKNOWN:
            out += " \u2047 ".encode()  # what SentencePiece prints for it
        else:
            out += (piece if out else piece.removeprefix(WORD_START)).replace(WORD_START, " ").encode()
    return out.decode("utf-8", errors="replace")


def split_tags(text: str) -> tuple[str, tuple[str, ...]]:
    """Returns the text without its language tags, and their languages in order: "Hallo. <de-DE>" gives "Hallo.", de-DE."""
    return LANGUAGE_TAG.sub("", text), tuple(LANGUAGE_TAG.findall(text))


def tag_tokens(pieces: Sequence[str]) -> dict[str, int]:
    """Returns language -> token id, of the pieces that are a language tag as a whole."""
    tags = {piece.lstrip(WORD_START): index for index, piece in enumerate(pieces)}
    return {match[1]: index for tag, index in tags.items() if (match := LANGUAGE_TAG.fullmatch(tag))}
