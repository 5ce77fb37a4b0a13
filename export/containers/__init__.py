"""Containers of checkpoints: a .nemo file, or a folder of Hugging Face transformers. Each gives a config in NeMo's form, a
SentencePiece model, and weights by NeMo's names; nothing behind them knows which one it was."""

from __future__ import annotations

from pathlib import Path

from nemoport.export.containers.container import Container
from nemoport.export.containers.nemo import NemoFile
from nemoport.export.containers.transformers_folder import TransformersFolder


def container_at(path: Path) -> Container:
    """The container at a path that `nemoport.export.source.resolve` gave."""
    return TransformersFolder(path) if path.is_dir() else NemoFile(path)
