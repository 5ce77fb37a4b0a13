"""Refusal of what a consumer cannot run, by name and all at once: what layouts share whose consumers keep NeMo's caches."""

from __future__ import annotations

from collections.abc import Sequence

from nemoport.cache_layout import NEMO, cache_layout_of
from nemoport.errors import UsageError
from nemoport.package.layouts.onnx_asr import GPU_ONLY
from nemoport.tokens import Pieces, SpellingRule

NO_PIECES = Pieces([], SpellingRule())
USUAL = "NeMo's usual front end, variants of the nemo cache layout for any processor"


def variant_problems(variants: Sequence[str]) -> list[str]:
    """Returns each variant that is for another processor, or has caches of another layout."""
    found = [f"{name}, which {GPU_ONLY[name]}" for name in variants if name in GPU_ONLY]
    if others := [name for name in variants if cache_layout_of(name) != NEMO]:
        found.append(f"{', '.join(others)}, whose caches it does not keep")
    return found


def refuse(consumer: str, expected: str, problems: Sequence[str]) -> None:
    """Raises UsageError where there are problems."""
    if problems:
        raise UsageError(
            f"{consumer} cannot run this.",
            expected=expected,
            found="; ".join(problems),
            todo="name other variants (--variant), or take the layout native",
        )
