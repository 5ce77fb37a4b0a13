"""The graphs of heads (nemoport/heads/): each module here defines GRAPH, for the head of its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from nemoport.spec import DecodingSpec, ModelSpec

Axes = dict[str, dict[int, str]]  # tensor -> names of its dynamic dimensions


@dataclass(frozen=True)
class HeadGraph:
    """How the graph of a head is traced.

    build(tensors, spec): the module, from a checkpoint's tensors by name; its `unused` lists the weights that it does not use.
    example(spec): inputs to trace it with, none of whose dynamic dimensions is 1.
    axes: tensor -> the names of its dynamic dimensions.
    """

    build: Callable[[dict[str, Tensor], DecodingSpec], Any]
    example: Callable[[ModelSpec], tuple[Tensor, ...]]
    axes: Axes


def head_graph(head: str) -> HeadGraph:
    """head: a name of nemoport.heads."""
    return import_module(f"{__name__}.{head}").GRAPH
