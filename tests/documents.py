"""The documents of the repository as tests read them: fenced blocks with what is told of them, links, anchors."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Pages that readers are sent to. Their blocks are run. Those of the others are history or reports: links and forms are checked.
RUN = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples")
OTHERS = ("CHANGELOG.md", "bench", "reference/README.md")
BLOCK = re.compile(
    r"^(?P<told>(?:<!-- [^\n]* -->\n)*)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```[^\S\n]*$", re.MULTILINE | re.DOTALL
)
COMMENT = re.compile(r"<!-- (not run|slow)(?:: (.*?))? -->")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block. number: its place among those of its document, from 1; told: what the comments above it tell, such as
    {"not run": the reason} or {"slow": ""}."""

    document: str
    number: int
    language: str
    text: str
    told: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.document}-{self.number}"

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block without comments; those that a backslash continues are one."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def documents(*roots: str) -> list[str]:
    """Paths of the documents in folders, or of the named files, relative to the repository."""
    found: list[Path] = []
    for root in roots:
        path = ROOT / root
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path]
    return [path.relative_to(ROOT).as_posix() for path in found]


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    found = BLOCK.finditer(read(document))
    return [
        Block(document, number, one["language"], one["text"], {kind: why for kind, why in COMMENT.findall(one["told"])})
        for number, one in enumerate(found, 1)
    ]


def links(document: str) -> list[str]:
    """Targets of its links, outside of blocks and of code."""
    text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", read(document)))
    return LINK.findall(text)


def anchors(text: str) -> set[str]:
    """Anchors of a document's headings, as GitHub and mkdocs both make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        kept = re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode().lower())
        found.add(re.sub(r"[\s-]+", "-", kept.strip()))
    return found
