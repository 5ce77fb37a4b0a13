"""Token ids to text, as SentencePiece decodes: no SentencePiece needed at run time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.errors import ArtifactError

WORD_START = "\u2581"  # SentencePiece writes a leading space as this
UNKNOWN = "<unk>"


def read_tokens(path: Path) -> list[str]:
    """tokens.txt: one `piece id` a line, ids ascending from 0. Raises ArtifactError."""
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
    """Joins pieces; word starts become spaces; byte pieces (`<0xE2>`) become UTF-8; the leading space goes."""
    out = bytearray()
    for index in ids:
        piece = pieces[index]
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            out.append(int(piece[3:5], 16))
        elif piece == UNKNOWN:
            out += " \u2047 ".encode()  # what SentencePiece prints for it
        else:
            out += piece.replace(WORD_START, " ").encode()
    text = out.decode("utf-8", errors="replace")
    return text[1:] if text.startswith(" ") else text
