"""What griffe is given so that docstrings become pages: each line `name: what it is` of a docstring is an item of a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

ITEM = re.compile(r"^( {0,4})([a-z_*][\w, *]*(?:\([\w, ]+\))?): ", re.MULTILINE)


def listed(text: str) -> str:
    """Returns a docstring whose lines `name: text` are items. A line that is indented more goes on with its item."""
    lines, inside = [], False
    for line in text.splitlines():
        if found := ITEM.match(line):
            if not inside:
                lines.append("")
            line, inside = f"- `{found[2]}`: {line[found.end() :]}", True
        elif inside and line.startswith(" "):
            line = f"  {line.strip()}"
        elif inside and line.strip():
            lines.append("")
            inside = False
        lines.append(line)
    return "\n".join(lines)


class Listed(griffe.Extension):
    """Applies `listed` to every docstring."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = listed(obj.docstring.value)
