"""The files of a model in the format of Hugging Face transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable

CONFIG, TOKENIZER, PROCESSOR, EXTRACTOR = "config.json", "tokenizer.json", "processor_config.json", "preprocessor_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.safetensors")


def needed_files(names: Iterable[str]) -> list[str]:
    """Which of the names of a folder's files are those of a model, without what its index may not name; empty where it has no
    config.json or no weights."""
    there = set(names)
    weights = [WEIGHTS] if WEIGHTS in there else sorted(name for name in there if name == INDEX or SHARD.fullmatch(name))
    if CONFIG not in there or not {WEIGHTS, INDEX} & there:
        return []
    return [name for name in (CONFIG, TOKENIZER, PROCESSOR, EXTRACTOR) if name in there] + weights
