"""Grammars in text files: ``text/grammar_<language>.txt``.

A line "name = one | other" is a slot; ``{name}`` in a sentence or in another slot stands for one of them, drawn evenly,
and ``{name*}`` for one to six in a row. Below ``[grammar]`` and ``[prose]`` every other line is a sentence of that kind.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache

from . import text


@dataclass(frozen=True)
class Grammar:
    """A grammar: ``sentences`` by kind, "grammar" and "prose"; ``slots`` by name; ``joiner`` stands between words."""

    sentences: dict[str, tuple[str, ...]]
    slots: dict[str, tuple[str, ...]]
    joiner: str

    def filled(self, line: str, rng: random.Random) -> str:
        """Fills the slots of a line, and those of what is drawn for them."""

        def draw(slot: re.Match) -> str:
            times = rng.randint(1, 6) if slot[2] else 1
            return self.joiner.join(self.filled(rng.choice(self.slots[slot[1]]), rng) for _ in range(times))

        return re.sub(r"{(\w+)(\*?)}", draw, line)

    def sentence(self, kind: str, rng: random.Random) -> str:
        """Draws one sentence as it is written, its first letter a capital where the script has them."""
        line = self.filled(rng.choice(self.sentences[kind]), rng)
        start = 1 if line[0] in "¿¡" else 0
        return line[:start] + line[start : start + 1].upper() + line[start + 1 :]

    def words(self) -> list[str]:
        """Every word that stands in a slot."""
        return sorted(
            {word for choices in self.slots.values() for choice in choices if "{" not in choice for word in choice.split()}
        )


@cache
def load(language: str, joiner: str) -> Grammar:
    """Loads the grammar of ``text/grammar_<language>.txt``. Raises FileNotFoundError where there is none."""
    kind = ""
    sentences: dict[str, list[str]] = {}
    slots: dict[str, tuple[str, ...]] = {}
    for line in (text.TEXT_FOLDER / f"grammar_{language}.txt").read_text().splitlines():
        name, equals, choices = line.partition(" = ")
        if line.startswith("["):
            kind = line.strip("[]")
        elif equals:
            slots[name] = tuple(choice.strip() for choice in choices.split(" | "))
        elif line and not line.startswith("#"):
            sentences.setdefault(kind, []).append(line)
    return Grammar({kind: tuple(lines) for kind, lines in sentences.items()}, slots, joiner)
