"""Draws docs/layers.svg from the layer contract in pyproject.toml: `python docs/draw_layers.py`."""

from __future__ import annotations

import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = Path(__file__).with_name("layers.svg")
WIDTH, LINE, PAD, COLUMNS = 920, 17, 9, 108


def layers() -> list[list[str]]:
    """Names of the modules of each layer without the package's name, the highest layer first."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    rows = [row.replace("|", ":").split(":") for row in contract["layers"]]
    return [[name.strip().removeprefix("nemoport.") for name in row] for row in rows]


def drawing() -> str:
    """A band for each layer, the highest on top: what stands in one may import from those below it."""
    bands, top = [], 34
    for row in layers():
        lines = textwrap.wrap(" · ".join(row), COLUMNS)
        height = len(lines) * LINE + 2 * PAD
        bands.append(f'<rect x="10" y="{top}" width="{WIDTH - 20}" height="{height}" rx="5"/>')
        for number, line in enumerate(lines):
            bands.append(f'<text x="24" y="{top + PAD + 13 + number * LINE}">{escape(line)}</text>')
        top += height + 6
    style = "rect{fill:#eef3fa;stroke:#5b7aa8}text{font:13px monospace;fill:#1b2a41}.note{font:12px sans-serif;fill:#555}"
    head = '<text class="note" x="10" y="20">Imports go down only: a module may import from the layers below its own.</text>'
    size = f'width="{WIDTH}" height="{top + 4}" viewBox="0 0 {WIDTH} {top + 4}"'
    ground = f'<path fill="#fff" d="M0 0h{WIDTH}v{top + 4}H0z"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{ground}{head}\n' + "\n".join(bands) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
