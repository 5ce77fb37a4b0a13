"""Sessions over a stranger's graphs.

    folder = read_folder(path)
    session = open_session(folder.models[0], folder)   # a nemoport.session.Session
    stream = Stream(session, mel_filterbank(session.spec.frontend), lookahead=session.spec.lookaheads[0])

`session.spec` is the folder's own where it is nemoport's, else what follows from the graphs, with NeMo's usual front end. A graph
that takes every window for a later one, as NeMo's own export does, gets zeros before its first window. Text:
`folder.vocabularies[0].pieces`, through nemoport.tokens.detokenize.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.adapter import Adapter
from nemoport.foreign.folder import ForeignFolder, ForeignModel, Part
from nemoport.foreign.ports import CHANNEL, CTC, FILLED, PRE_CACHE, PROMPT, SIGNAL
from nemoport.foreign.spec import LEFT, LEFT_MULTILINGUAL, lookaheads_of, spec_of
from nemoport.runtimes.onnxruntime.merged import MergedSession
from nemoport.runtimes.onnxruntime.session import OnnxSession, open_graph, run
from nemoport.runtimes.onnxruntime.split import SplitSession
from nemoport.spec import ModelSpec


class _Fused(OnnxSession):
    def __init__(self, spec: ModelSpec, encoder: Any, decoder: Any):
        self.spec, self._encoder, self._decoder, self.encoder = spec, encoder, decoder, encoder


class _Split(SplitSession):
    def __init__(self, spec: ModelSpec, encoder: Any, decoder: Any, joiner: Any):
        self.spec, self._encoder, self._decoder, self._joiner, self.encoder = spec, encoder, decoder, joiner, encoder


class _Merged(MergedSession):
    def __init__(self, spec: ModelSpec, encoder: Any):
        self.spec, self._encoder, self.encoder = spec, encoder, encoder


ForeignSession = _Fused | _Split | _Merged  # each a nemoport.session.Session, with its encoder by itself


def open_session(model: ForeignModel, folder: ForeignFolder, threads: int = 1) -> ForeignSession:
    """Opens a model in onnxruntime. threads: 0 for onnxruntime's choice. Raises ArtifactError for graphs that cannot be opened,
    lack a part, or state no sizes."""
    encoder, spec = open_encoder(model, folder, threads)
    if model.encoder.ports.role == CTC:
        return _Merged(spec, encoder)
    if model.fused or model.scorer:
        return _Fused(spec, encoder, _opened(model.fused or model.scorer, threads))
    return _Split(spec, encoder, _opened(model.predictor, threads), _opened(model.joiner, threads))


def open_encoder(model: ForeignModel, folder: ForeignFolder, threads: int = 1) -> tuple[Adapter, ModelSpec]:
    """Opens the encoder alone, by NeMo's names, and completes its spec by what it does: the left context, where the graph does
    not state it, the largest lookahead, and whether its first window has to be padded. Raises ArtifactError."""
    adapter, spec = _opened(model.encoder, threads), spec_of(model, folder)
    if spec.streaming is None or not model.encoder.ports.streaming:
        return adapter, spec
    if CHANNEL in adapter.ports.inputs and adapter.ports.inputs[CHANNEL].shape[2] is None:
        spec = _with_left_context(adapter, spec)
    if folder.settings.spec is None:
        served = later_frames(adapter, spec) - 1
        lookaheads = tuple(r for r in spec.require_streaming().lookaheads if r <= served) or (max(served, 0),)
        spec = replace(spec, streaming=replace(spec.require_streaming(), lookaheads=lookaheads))
    if takes_later_windows(adapter, spec):
        streaming = spec.require_streaming()
        adapter.left_mel_frames = streaming.pre_encode_cache_mel_frames + streaming.subsampling_factor - 1
    return adapter, spec


def _with_left_context(encoder: Adapter, spec: ModelSpec) -> ModelSpec:
    """The spec with the first left context with which the encoder runs: the spec's, else those of published checkpoints."""
    streaming = spec.require_streaming()
    errors = []
    for left in dict.fromkeys((streaming.left_context_enc_frames, LEFT, LEFT_MULTILINGUAL)):
        tried = replace(spec, streaming=replace(streaming, left_context_enc_frames=left, lookaheads=lookaheads_of(left)))
        try:
            later_frames(encoder, tried)
        except ArtifactError as error:
            errors.append(error)
        else:
            return tried
    raise errors[0]


def later_frames(encoder: Adapter, spec: ModelSpec) -> int:
    """How many frames the encoder makes of a later window of the largest lookahead: a graph that was exported for a smaller one
    makes no more than that has."""
    streaming = spec.require_streaming()
    size = encoder.ports.inputs[SIGNAL].shape[2] or streaming.window_mel_frames(max(streaming.lookaheads), first=False)
    if PRE_CACHE in encoder.ports.inputs and encoder.ports.inputs[SIGNAL].shape[2]:
        size += streaming.pre_encode_cache_mel_frames
    feeds = first_feeds(encoder, spec, size)
    for name in feeds.keys() & {FILLED, "cache_len"}:
        feeds[name] = np.full(1, streaming.left_context_enc_frames)
    return int(run(encoder, ("encoded_lengths",), feeds)[0][0])


def takes_later_windows(encoder: Adapter, spec: ModelSpec) -> bool:
    """Whether a streaming encoder takes the first window of a stream for a later one: it has a fixed length or a cache of its
    own, or drops frames of the first window, of 1 + 8r mel frames."""
    streaming = spec.require_streaming()
    static = encoder.ports.inputs[SIGNAL].shape[2]
    lookahead = max(streaming.lookaheads)
    size = streaming.window_mel_frames(lookahead, first=True)
    if static is not None or PRE_CACHE in encoder.ports.inputs:
        return static != size
    try:
        counts = run(encoder, ("encoded_lengths",), first_feeds(encoder, spec, size))[0]
    except ArtifactError:  # where all of them are dropped, some graphs fail
        return True
    return int(counts[0]) < lookahead + 1


def first_feeds(encoder: Adapter, spec: ModelSpec, mel_frames: int, batch: int = 1) -> dict[str, Any]:
    """Returns what the first window of `batch` new streams is fed: features of noise, empty caches, prompt slot 0."""
    from nemoport.cache_layout import caches_of

    names = [one.name for one in encoder.get_inputs()]
    mel = np.random.default_rng(0).normal(-8.0, 3.0, (batch, spec.frontend.n_mels, mel_frames)).astype(np.float32)
    caches = caches_of(names).initial(spec.streaming, batch).feeds() if {CHANNEL, FILLED, "cache_len"} & {*names} else {}
    prompts = {PROMPT: np.zeros(batch, np.int64)} if PROMPT in names else {}
    return {"audio_signal": mel, "length": np.full(batch, mel_frames), **caches, **prompts}


def _opened(part: Part | None, threads: int) -> Adapter:
    if part is None:
        raise ArtifactError("This model lacks a graph.", expected="encoder, decoder and joint", found="one missing")
    return Adapter(open_graph(part.graph.path, threads=threads), part.ports)
