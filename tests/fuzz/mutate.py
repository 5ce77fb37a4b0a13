"""Mutations of bytes, of texts and of values of JSON's types. Every choice is the random generator's."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (
    0,
    -1,
    1,
    2,
    7,
    8,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63,
    10**9,
    10**12,
    10**18,
    10**30,
    -(2**63),
)
FLOATS = (0.0, -0.0, 0.5, 1.0, 8.0, -1.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
NAMES = (
    "",
    ".",
    "..",
    "/",
    "../x",
    "/etc/passwd",
    "a/../b",
    "con:",
    "C:\\x",
    "x" * 300,
    "x\0y",
    "~",
    "-",
    "--help",
    "${oc.env:HOME}",
)
TEXTS = (
    *NAMES,
    "\x1b[2J",
    "\x1b]0;x\x07",
    "a\nb",
    "\r",
    "\u2028",
    "\u202e",
    "\ud800",
    "\ufeff",
    "é" * 40,
    "😀",
    "x" * 5000,
    "<b>",
    "1",
    "-5",
    "1e999",
    "nan",
    "true",
    "null",
    "١٢",
    "<unk>",
    "<0xZZ>",
    "<0xE2>",
    "<0x1B>",
    "▁",
    "9" * 5000,
)
BYTES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xff\xff\xff\xff",
    b"\0" * 64,
    b"9" * 30,
)
DEEP = 3000


def mutated_bytes(rng: Random, data: bytes, others: Sequence[bytes] = (), extra: Sequence[bytes] = BYTES) -> bytes:
    """data with a few changes. others: what may be spliced in; extra: what may be inserted."""
    made = bytearray(data)
    for _ in range(_few(rng)):
        size = len(made)
        at = rng.randrange(size + 1)
        kind = rng.randrange(9)
        if kind == 0 and size:
            made[at % size] ^= 1 << rng.randrange(8)
        elif kind == 1 and size:
            made[at % size] = rng.randrange(256)
        elif kind == 2:
            del made[at : at + _length(rng)]
        elif kind == 3:
            made[at:at] = made[at : at + _length(rng)]
        elif kind == 4:
            made[at:at] = rng.choice(extra)
        elif kind == 5:
            piece = rng.choice(extra)
            made[at : at + len(piece)] = piece
        elif kind == 6:
            del made[at:]
        elif kind == 7 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            made[at:] = other[start:]
        elif size:
            start, length = rng.randrange(size), _length(rng)
            made[at : at + length] = made[start : start + length]
    return bytes(made)


def odd_value(rng: Random) -> Any:
    """A value that is rarely what a reader expects."""
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind == 3:
        return rng.choice(FLOATS)
    if kind < 6:
        return rng.choice(TEXTS)
    if kind == 6:
        return rng.choice((None, True, False))
    return rng.choice(([], {}, [0], ["x"], [[]], [None], {"a": 1}, {"x": {}}, [1, "x", None], [-1, -1], [1] * 200, {"": ""}))


def mutated_value(rng: Random, value: Any, odd: Callable[[Random], Any] = odd_value) -> Any:
    """A copy of a value of JSON's types with a few changes anywhere in it."""
    made = copy.deepcopy(value)
    for _ in range(_few(rng)):
        places = list(_places(made))
        if not places:
            return odd(rng)
        holder, key = rng.choice(places)
        kind = rng.randrange(12)
        if kind < 5:
            holder[key] = odd(rng)
        elif kind == 5:
            del holder[key]
        elif kind == 6:
            other, name = rng.choice(places)
            holder[key] = copy.deepcopy(other[name]) if isinstance(other, dict) or name < len(other) else odd(rng)
        elif kind == 7 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key) if rng.random() < 0.5 else odd(rng)
        elif kind == 8:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}
        elif kind == 9 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]) if rng.random() < 0.5 else odd(rng))
        else:
            holder[key] = _near(rng, holder[key])
    return odd(rng) if rng.random() < 0.01 else made


def mutated_json(rng: Random, value: Any, others: Sequence[bytes] = ()) -> bytes:
    """A JSON text: of a mutated value, or of the value with mutated bytes, or one that JSON's readers differ in."""
    if (kind := rng.random()) < 0.7:
        return json.dumps(mutated_value(rng, value)).encode()
    text = json.dumps(value).encode()
    if kind < 0.95:
        return mutated_bytes(
            rng, text, others, (*BYTES, b"NaN", b"Infinity", b"-0", b"1e400", b'"', b"{", b"[", b"\\ud800", b"null,")
        )
    if kind < 0.97:
        return rng.choice((b"[", b'{"a":')) * rng.choice((1000, DEEP, 100_000))
    if kind < 0.98:
        return rng.choice(
            (text.decode().encode("utf-16"), b"\xef\xbb\xbf" + text, b"", b"null", b"[]", b'"x"', b"1", b"9" * 5000)
        )
    at = rng.choice([i for i, c in enumerate(text) if c in b":,[" and i] or [0]) + 1
    return text[:at] + rng.choice((b"[" * DEEP + b"]" * DEEP, b"9" * 5000, b"1e400", b'"x":1,"x":2,', b"1E5", b"-")) + text[at:]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(mapping or list, key or index) of everything below a value, breadth first and not without end."""
    found, todo = [], [value]
    for holder in todo:
        if len(found) > 3000:
            break
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            todo.append(holder[key])
    return found


def _near(rng: Random, value: Any) -> Any:
    """A value that differs a little."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice(
            (
                value + 1,
                value - 1,
                -value,
                value * 2,
                float(value) if abs(value) < 1e300 else 0,
                str(value)[:20] if abs(value) < 1e300 else "",
                value * 1000,
            )
        )
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return rng.choice(
            (value[:at], value[:at] + rng.choice(TEXTS) + value[at:], value * 2, value.upper(), rng.choice(NAMES) + value)
        )
    if isinstance(value, list):
        return rng.choice(
            (value[::-1], value[:-1], value * 2, value[0] if value else 0, {f"{i}": one for i, one in enumerate(value)})
        )
    if isinstance(value, dict):
        return rng.choice((list(value), list(value.values()), {}))
    return 0


def _few(rng: Random) -> int:
    return rng.choice((1, 1, 1, 1, 2, 2, 3, 5))


def _length(rng: Random) -> int:
    return rng.choice((1, 1, 2, 3, 4, 8, 16, 64, 512))
