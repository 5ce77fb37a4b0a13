"""Sessions over graphs whose inputs and outputs are a consumer's (boundary.py): nemoport runs them as its own, to verify them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from nemoport.package.boundary import Side
from nemoport.runtimes.onnxruntime.merged import MergedSession
from nemoport.runtimes.onnxruntime.session import OnnxSession, open_graph
from nemoport.runtimes.onnxruntime.split import SplitSession
from nemoport.spec import ModelSpec

Feeds = Mapping[str, np.ndarray]


class AdaptedGraph:
    """An edited graph behind our names, axes and types, as `OnnxSession` runs it. feed: changes what is fed, under the consumer's
    names, where that is more than names, axes and types."""

    def __init__(self, path: Path, inputs: Side, outputs: Side, feed: Callable[[Feeds], Feeds] = lambda feeds: feeds):
        """Raises as `open_graph`."""
        self._session = open_graph(path, threads=1)
        self._inputs, self._outputs, self._feed = inputs, outputs, feed

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._inputs]

    def run(self, names: Sequence[str], feeds: Feeds) -> list[np.ndarray]:
        fed = self._feed({port.name: port.outward(feeds[name]) for name, port in self._inputs.items()})
        ports = [self._outputs[name] for name in names]
        found = self._session.run([port.name for port in ports], fed)
        return [port.inward(values) for port, values in zip(ports, found, strict=True)]


class AdaptedSession(SplitSession):
    """`nemoport.session.Session` over adapted graphs: encoder and decoder, and a joiner if the decoder is split."""

    def __init__(self, spec: ModelSpec, encoder: AdaptedGraph, decoder: AdaptedGraph, joiner: AdaptedGraph | None = None):
        self.spec, self._encoder, self._decoder, self._joiner = spec, encoder, decoder, joiner

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        return (SplitSession if self._joiner else OnnxSession).step(self, frames, tokens, state)


class AdaptedMergedSession(MergedSession):
    """`nemoport.session.Session` over an adapted graph that holds an encoder and a CTC decoder."""

    def __init__(self, spec: ModelSpec, model: AdaptedGraph):
        self.spec, self._encoder = spec, model
