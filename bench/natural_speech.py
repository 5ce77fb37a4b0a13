"""Evaluation speech in Kokoro's voices, in manifests of a hundred utterances: a corpus that grows keeps those that it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import further

from nemoport.errors import NemoportError
from nemoport.reference import kokoro_corpus

TURNS = 4  # manifests of a block, one for each lookahead


def make(folder: Path, count: int, progress: Callable[[str], None]) -> list[Path]:
    """Manifests of whole blocks, of up to `count` English utterances: of those that are there already, where Kokoro cannot be
    fetched. folder: of the corpus (en/) and of Kokoro itself (packages/)."""
    manifest = folder / "en" / kokoro_corpus.MANIFEST
    try:
        kokoro_corpus.write(manifest.parent, count, "en", "0", folder / "packages")
    except NemoportError as error:
        progress(f"no more speech of Kokoro: {error}")
    rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)[:count] if manifest.is_file() else []
    found, block = [], further.EACH * TURNS
    for start in range(0, len(rows) // block * block, block):
        for turn in range(TURNS):  # by fours the sentences are of one kind, so that each manifest has both
            found.append(manifest.with_name(f"part-{start:05d}-{turn}.jsonl"))
            found[-1].write_text("".join(rows[start + turn : start + block : TURNS]), encoding="utf-8")
    return found
