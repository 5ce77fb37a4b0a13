"""Lays variants out by one of our layouts, which asks no gate, at a lookahead, whatever the build's default."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nemoport.package.layouts import load_layout


def lay_out(layout: str, build: Path, variants: Sequence[str], folder: Path, lookahead: int | None = None) -> None:
    """Fills the new folder. lookahead: of a streaming model; None for the build's."""
    folder.mkdir(parents=True)
    config = json.loads((build / "config.json").read_text())
    if lookahead is not None:
        config["encoder"]["default_lookahead"] = lookahead
    with tempfile.TemporaryDirectory() as staged:
        (Path(staged) / "config.json").write_text(json.dumps(config))
        for name in ("shared", *variants):
            (Path(staged) / name).symlink_to((build / name).resolve())
        load_layout(layout).lay_out(Path(staged), variants, folder)
