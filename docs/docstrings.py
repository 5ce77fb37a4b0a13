"""What griffe is given so that docstrings become pages: `name: what it is` is an item of a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import griffe


def listed(text: str, names: Iterable[str]) -> str:
    """Returns a docstring in which each `name: text` of one of `names` is an item. It begins a paragraph, or stands behind a
    sentence or a semicolon; "Raises" begins a paragraph."""
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not known:
        return text
    item = re.compile(rf"((?:{known})(?:, (?:{known}))*): ")
    paragraphs = (re.sub(r"\s*\n\s*", " ", paragraph) for paragraph in re.split(r"\n\s*\n", text))
    return "\n\n".join("".join(_parts(paragraph, item)).strip() for paragraph in paragraphs)


def _parts(paragraph: str, item: re.Pattern[str]) -> Iterator[str]:
    """The paragraph's parts, each with what stands before it in Markdown."""
    inside = False
    for part in re.split(rf"(?:(?<=[;.]) |^)(?=Raises |(?:{item.pattern}))", paragraph):
        if part is None or item.fullmatch(f"{part}: "):
            continue  # what the pattern's own group gives
        if found := item.match(part):
            yield ("\n" if inside else "\n\n") + f"- `{found[1]}`: {part[found.end() :].rstrip(';')}"
            inside = True
        elif part.startswith("Raises ") or inside:
            yield f"\n\n{part}"
            inside = False
        else:
            yield part


class Listed(griffe.Extension):
    """Applies `listed` to the docstrings of classes and functions."""

    def on_class_members(self, *, cls: Any, **_: Any) -> None:
        self._list(cls, {*cls.members, *(one.name for one in cls.parameters)})

    def on_function_instance(self, *, func: Any, **_: Any) -> None:
        self._list(func, {one.name for one in func.parameters})

    def _list(self, of: Any, names: set[str]) -> None:
        if of.docstring:
            of.docstring.value = listed(of.docstring.value, names - {"self", "cls"})
