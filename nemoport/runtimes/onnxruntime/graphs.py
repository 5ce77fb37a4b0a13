"""Interfaces of the ONNX graphs: names, types and shapes, NeMo's own where NeMo has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.buffered import ATT_CONTEXT
from nemoport.cache_layout import KV, cache_layout_of
from nemoport.caches import PROMPT, NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.heads import head_of
from nemoport.interface import F32, I64, Interface, Tensor, difference
from nemoport.spec import ModelSpec

ENCODER_INPUTS, ENCODER_OUTPUTS = ("audio_signal", "length"), ("outputs", "encoded_lengths")


def expected(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    """Returns the interface that each graph must have, as `Runtime.expected`."""
    layout = cache_layout_of(artifact.manifest.variant)
    return {ENCODER: encoder_interface(spec, layout), DECODER: head_of(spec).interface(spec)}


def found(artifact: Artifact) -> dict[str, Interface]:
    """Reads the interface of each graph on disk, as `Runtime.found`."""
    return {path.name: read_interface(path) for path in (artifact.encoder, artifact.decoder)}


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Checks the graphs' metadata, and that their weights are in the files that the manifest lists. See `Runtime.problems`."""
    import onnx

    listed = {entry.path for entry in artifact.manifest.files.values()}
    for path in (artifact.encoder, artifact.decoder):
        model, name = onnx.load(path, load_external_data=False), path.name
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        written = json.loads(metadata.get("nemoport.spec", "null"))
        yield difference(f"{name}: nemoport.spec", json.loads(json.dumps(spec.to_dict())), written)
        sha256 = metadata.get("nemoport.checkpoint_sha256")
        yield difference(f"{name}: nemoport.checkpoint_sha256", artifact.manifest.checkpoint_sha256, sha256)
        places = {e.value for i in model.graph.initializer for e in i.external_data if e.key == "location"}
        yield difference(f"{name}: external data in", {f"{name}.data"}, places)
        yield difference(f"{name}: listed in manifest.json", True, {name, f"{name}.data"} <= listed)


def encoder_interface(spec: ModelSpec, layout: str) -> Interface:
    """Returns the interface of an encoder graph in a cache layout."""
    lengths = Tensor(I64, (None,))
    inputs = dict(zip(ENCODER_INPUTS, (Tensor(F32, (None, spec.frontend.n_mels, None)), lengths), strict=True))
    outputs = dict(zip(ENCODER_OUTPUTS, (Tensor(F32, (None, spec.encoder.d_model, None)), lengths), strict=True))
    if spec.streaming is None:
        return Interface(inputs | ({ATT_CONTEXT: Tensor(I64, (3,))} if spec.buffered else {}), outputs)
    if layout == KV:
        *caches, (length, _) = KvCaches.shapes(spec.streaming, 1).items()
        inputs |= {name: Tensor(F32, (shape[0], None, *shape[2:])) for name, shape in caches} | {length: lengths}
        added = zip(KvCaches.outputs(spec.streaming), caches, strict=True)
        outputs |= {name: Tensor(F32, (None, None, *shape[2:])) for name, (_, shape) in added}
    else:
        *caches, (length, _) = NemoCaches.shapes(spec.streaming, 1).items()
        tensors = {name: Tensor(F32, (None, *shape[1:])) for name, shape in caches} | {length: lengths}
        inputs |= tensors
        outputs |= dict(zip(NemoCaches.outputs(spec.streaming), tensors.values(), strict=True))
    return Interface(inputs | ({PROMPT: lengths} if spec.prompt else {}), outputs)


def read_interface(path: Path) -> Interface:
    """Reads the interface of an ONNX file, without its weights."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return Interface(_tensors(graph.input), _tensors(graph.output))


def _tensors(values: Iterable[Any]) -> dict[str, Tensor]:
    return {value.name: _tensor(value.type.tensor_type) for value in values}


def _tensor(kind: Any) -> Tensor:
    from onnx import helper

    dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return Tensor(np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name, dims)
