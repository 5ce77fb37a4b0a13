"""The two cache layouts of streaming encoders, `nemo` and `kv`, and the names that show which one a variant or a graph has.

A variant's name begins with kv- if its graphs have the kv layout: kv-int8-dynamic is int8-dynamic in that layout. A graph's
layout shows in the names of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable

from nemoport.caches import Caches, NemoCaches, NoCaches
from nemoport.caches_kv import KvCaches
from nemoport.errors import UsageError
from nemoport.spec import ModelSpec

NEMO, KV = "nemo", "kv"
KV_PREFIX = "kv-"


def variant_of(layout: str, precision: str) -> str:
    """Returns the name of the variant of a precision, such as int8-dynamic, in a layout."""
    return f"{KV_PREFIX}{precision}" if layout == KV else precision


def cache_layout_of(variant: str) -> str:
    """Returns the layout that a variant's name shows."""
    return KV if variant.startswith(KV_PREFIX) else NEMO


def precision_of(variant: str) -> str:
    """Returns a variant's name without its layout."""
    return variant.removeprefix(KV_PREFIX)


def caches_of(inputs: Iterable[str]) -> type[Caches]:
    """Returns the class of caches of an encoder graph. inputs: names of the graph's inputs."""
    names = set(inputs)
    return KvCaches if "cache_len" in names else NemoCaches if "cache_last_channel" in names else NoCaches


def caches_for(spec: ModelSpec, layout: str) -> type[Caches]:
    """Returns the class of caches of the graphs that are exported for `spec` in a layout."""
    return NoCaches if spec.streaming is None else KvCaches if layout == KV else NemoCaches


def check_layout(layout: str, spec: ModelSpec) -> None:
    """Raises UsageError for a layout that does not exist, or that this model cannot have."""
    if layout not in (NEMO, KV):
        raise UsageError(f"Unknown cache layout {layout!r}.", expected=f"{NEMO} or {KV}", found=layout, todo="choose one")
    if layout == KV and spec.streaming is None:
        todo = "leave the cache layout out: there is one graph"
        raise UsageError("An offline model has no caches.", expected=NEMO, found=KV, todo=todo)
