"""Texts that come from a file: shortened for a message, and without what commands a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # controls, halves of a pair, which no encoding takes, and line ends of Unicode
_REORDERING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # the rest of a line runs backwards


def lines(text: str) -> list[str]:
    """Returns the lines of a file, without their LF or CRLF. `str.splitlines` also ends a line at U+2028, U+0085 and their like,
    which a text may hold."""
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


def has_controls(text: str) -> bool:
    """Whether a line of a file or a terminal cannot hold the text as it is. Joiners, which Hindi and Persian need, are none."""
    return not text.isprintable() and any(unicodedata.category(c) in _CONTROLS for c in text)


def printable(text: str) -> str:
    """Returns the text for a terminal: every control character but line ends and tabs as its escape, such as \\x1b."""
    return "".join(ascii(c)[1:-1] if c not in "\n\t" and (has_controls(c) or c in _REORDERING) else c for c in text)


def clipped(text: object, most: int = 200) -> str:
    """A value of a file for a message: what cannot be printed escaped, and not longer than `most` characters."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[: most + 1])
    return shown if len(shown) <= most else shown[:most] + " ..."


def columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Lines of a table for a terminal, its columns two spaces apart; a column that is empty in every row is left out. right: all
    but the first column end at their right edge."""
    used = [i for i in range(len(rows[0])) if any(row[i] for row in rows)]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    return ["  ".join(f"{row[i]:{'>' if right and i else '<'}{widths[i]}}" for i in used).rstrip() for row in rows]
