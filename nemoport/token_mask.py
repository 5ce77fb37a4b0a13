"""Restriction of the tokens that a model may emit: to scripts, or to a list. A language lock for models without a prompt.

What is not allowed gets a score that no token is chosen by, before greedy decoding or a beam search compares the scores; blank
and the durations of a TDT model stay as they are. The confidence of a token is that among the allowed ones.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nemoport.errors import UsageError
from nemoport.session import Session
from nemoport.spec import MASKED_SCORE
from nemoport.text import clipped
from nemoport.tokens import BYTE_PIECE, UNKNOWN, WORD_START, is_special

# The first word of a character's Unicode name is its script, but for these. Marks that combine with letters of any script, and
# letters that modify those of any, are of none.
_NO_SCRIPT = dict.fromkeys(("COMBINING", "VARIATION", "MODIFIER", "KATAKANA-HIRAGANA"))
_SCRIPT_NAMES = {**_NO_SCRIPT, "CJK": "HAN", "IDEOGRAPHIC": "HAN"}
_BYTES = "bytes"  # of characters beyond ASCII: a piece of one alone has no script, and could spell any


def scripts_of(piece: str) -> set[str]:
    """Returns the Unicode scripts of a piece's letters, as "Latin", "Cyrillic", "Greek", "Han"; none for digits, punctuation,
    spaces, language tags and other special tokens, and "bytes" for a byte of a character beyond ASCII."""
    byte = BYTE_PIECE.fullmatch(piece)
    piece = chr(int(byte[1], 16)) if byte else piece
    if byte and not piece.isascii():
        return {_BYTES}
    letters = "" if is_special(piece) else unicodedata.normalize("NFKC", piece.replace(WORD_START, " "))
    words = (unicodedata.name(c, "UNKNOWN").split()[0] for c in letters if unicodedata.category(c)[0] in "LM")
    return {name.title() for word in words if (name := _SCRIPT_NAMES.get(word, word))}


def allowed_tokens(pieces: Sequence[str], scripts: Iterable[str], mask: Path | str | None) -> np.ndarray:
    """Returns bool [V], the tokens that `scripts` and `mask` both allow.

    scripts: names of Unicode scripts, in any case; a token is allowed whose letters all are of these; none: all are. mask: a file
    of some of the lines of tokens.txt, the allowed tokens; None: all are. Raises UsageError for a script that the vocabulary does
    not have, and for a file that cannot be read or has other lines.
    """
    if isinstance(scripts, str):
        raise UsageError("Scripts are a list.", expected="a list of names", found=repr(scripts), todo="put it in brackets")
    of_each = [scripts_of(piece) for piece in pieces]
    known, wanted = set().union(*of_each) - {_BYTES}, {name.title() for name in scripts}
    if wanted - known:
        raise UsageError(
            "The model does not write this script.",
            expected=", ".join(sorted(known)) or "none: it has no letters",
            found=clipped(", ".join(sorted(wanted - known))),
            todo="choose among these, or leave --script out",
        )
    allowed = np.array([not wanted or found <= wanted for found in of_each])
    return allowed if mask is None else allowed & _listed(pieces, Path(mask))


def _listed(pieces: Sequence[str], mask: Path) -> np.ndarray:
    listed, problem = np.zeros(len(pieces), bool), ""
    ids = {f"{piece} {index}": index for index, piece in enumerate(pieces)}
    try:
        lines = mask.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        lines, problem = [], str(error)
    for line in filter(None, (line.removesuffix("\r") for line in lines)):
        if line in ids:
            listed[ids[line]] = True
        else:
            problem = problem or clipped(repr(line))
    if problem or not listed.any():
        raise UsageError(
            f"{mask} is no mask of this vocabulary.",
            expected="the lines of the allowed tokens in tokens.txt, such as `a 7`",
            found=problem or "no line",
            todo="write it anew, for example with `grep -v` from the artifact's tokens.txt",
        )
    return listed


class MaskedSession:
    """A session whose decoder scores the allowed tokens only."""

    def __init__(self, session: Session, allowed: np.ndarray):
        """allowed: bool [V]."""
        self._session, self._forbidden = session, np.flatnonzero(~allowed)
        self.spec, self.initial_state, self.encode = session.spec, session.initial_state, session.encode
        self.stack, self.unstack = session.stack, session.unstack

    def step(
        self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Scores as the session does; what is not allowed has MASKED_SCORE."""
        scores, state = self._session.step(frames, tokens, state)
        scores = scores.copy()  # a runtime's may be its own memory
        scores[:, :, self._forbidden] = MASKED_SCORE
        return scores, state


def restricted(session: Session, allowed: np.ndarray) -> Session:
    """Returns the session with the tokens restricted, the same where all are allowed. allowed: bool [V]."""
    return session if allowed.all() else MaskedSession(session, allowed)


def kept_pieces(pieces: Sequence[str], allowed: np.ndarray) -> list[str]:
    """Returns the pieces, with the unknown one in place of those that are not allowed: what hotwords can be spelled by."""
    return [piece if ok else UNKNOWN for piece, ok in zip(pieces, allowed, strict=True)]
