"""TDT: the graph of an RNNT whose joint also scores durations."""

from __future__ import annotations

from nemoport.export.heads.rnnt import GRAPH

__all__ = ["GRAPH"]
