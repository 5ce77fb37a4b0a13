"""What is transcribed: utterances of a data set, each with an id that decides its place in the results and its shard."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from nemoport.errors import UsageError

POSITIONS = 1 << 64
MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """An utterance. text: its reference, None where there is none; language: the spoken one; prompt_language: what a model with a
    prompt is given; fields: what else the data set says of it, for groups of scores."""

    id: str
    path: str
    offset_s: float = 0.0
    duration_s: float = 0.0  # 0: to the end
    text: str | None = None
    language: str = ""
    prompt_language: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def known(self) -> dict[str, Any]:
        """What a record states of it: all but where its audio is."""
        return {
            "id": self.id,
            "reference": self.text,
            "language": self.language,
            "fields": self.fields,
        }


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1: the utterances whose positions are in one part of POSITIONS."""

    number: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """Parses "2/8". Raises UsageError."""
        match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]) <= MOST_SHARDS:
            raise UsageError("The shard cannot be used.", expected="i/n with 1 <= i <= n", found=text, todo="correct --shard")
        return Shard(int(match[1]), int(match[2]))

    def __contains__(self, id: object) -> bool:
        return position(str(id)) * self.count // POSITIONS == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def position(id: str) -> int:
    """The place of an utterance among all others, in [0, POSITIONS). It depends on nothing but the id, so that shards and the
    order of results do not depend on the order of a data set."""
    return int.from_bytes(_digest(id)[:8], "big")


def key(id: str) -> bytes:
    """16 bytes that stand for an id in sets of millions."""
    return _digest(id)[:16]


def numbered(items: Iterable[Item]) -> Iterator[Item]:
    """Gives an id that comes again a number: "a.wav (2)"."""
    seen: set[bytes] = set()
    for item in items:
        number, unique = 1, item
        while key(unique.id) in seen:
            number += 1
            unique = replace(item, id=f"{item.id} ({number})")
        seen.add(key(unique.id))
        yield unique


class ItemsDigest:
    """A digest of utterances that does not depend on their order: the sum of the hashes of each."""

    def __init__(self) -> None:
        self.count, self._sum = 0, 0

    def add(self, item: Item) -> None:
        where = {"offset_s": item.offset_s, "duration_s": item.duration_s, "prompt_language": item.prompt_language}
        described = item.known() | where
        self._sum += int.from_bytes(_digest(json.dumps(described, sort_keys=True)), "big")
        self.count += 1

    def __str__(self) -> str:
        return f"{self._sum % (1 << 256):064x}"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
