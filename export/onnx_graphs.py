"""Traces encoder and decoder to ONNX: of each a graph file with the spec in its metadata, and one file of weights beside it."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from nemoport.artifact import DECODER, ENCODER
from nemoport.buffered import ATT_CONTEXT, FULL_CONTEXT
from nemoport.cache_layout import caches_for
from nemoport.caches import Caches, NemoCaches, NoCaches
from nemoport.caches_kv import CACHED, KvCaches
from nemoport.export import blocked, blocked_attention, blocked_subsampling, local_attention
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.encoder import CacheAwareEncoder, StreamingEncoder
from nemoport.export.encoder_kv import KvStreamingEncoder
from nemoport.export.encoder_offline import OfflineEncoder
from nemoport.export.heads import Axes, head_graph
from nemoport.export.layers import CAUSAL_PADDING
from nemoport.export.shared import graph_weights
from nemoport.export.weight_errors import explain_weight_errors, refuse_unused
from nemoport.graph_file import OPSET, save_model
from nemoport.heads import head_of
from nemoport.interface import Interface
from nemoport.runtimes.onnxruntime.graphs import encoder_interface

BLOCKED = {module.NAME: module.BODY for module in (blocked_attention, blocked_subsampling, local_attention)}
BLOCKED[blocked_attention.LIMITED] = blocked_attention.LIMITED_BODY
# called with the checkpoint's tensors, the encoder's spec and, of a model with a prompt, the prompt's
ENCODERS: dict[type[Caches], Callable[..., CacheAwareEncoder | OfflineEncoder]] = {
    NemoCaches: StreamingEncoder,
    KvCaches: KvStreamingEncoder,
    NoCaches: OfflineEncoder,
}


def export_graphs(checkpoint: Checkpoint, folder: Path, layout: str) -> None:
    """Writes encoder_model.onnx and decoder_model.onnx with their .data files into `folder`.

    layout: the cache layout of a streaming encoder (cache_layout.py). Raises CheckpointError.
    """
    weights, spec = graph_weights(checkpoint), checkpoint.spec
    head, caches = head_graph(spec.head), caches_for(spec, layout)
    encoder_example, decoder_example = _encoder_example(checkpoint, caches), head.example(spec)
    with explain_weight_errors(checkpoint), torch.no_grad():
        decoder = head.build(weights, spec.decoding)
        encoder = ENCODERS[caches](weights, spec.encoder, *([spec.prompt] if spec.prompt else []))
        decoder(*decoder_example)
        encoder(*encoder_example)
    refuse_unused(checkpoint, encoder.unused + decoder.unused)
    del weights
    metadata = {"nemoport.spec": json.dumps(spec.to_dict()), "nemoport.checkpoint_sha256": checkpoint.sha256}
    interface = encoder_interface(spec, layout)
    _export(encoder, encoder_example, folder / ENCODER, interface, _encoder_axes(interface), metadata)
    del encoder
    _export(decoder, decoder_example, folder / DECODER, head_of(spec).interface(spec), head.axes, metadata)


def _encoder_example(checkpoint: Checkpoint, caches: type[Caches]) -> tuple[torch.Tensor, ...]:
    """Inputs to trace the encoder with: two streams in the middle of their audio, or two utterances. They take every path, and no
    dimension is 1."""
    spec, frontend = checkpoint.spec.streaming, checkpoint.spec.frontend
    if spec is None:
        context = [torch.tensor([4, 2, 1])] if checkpoint.spec.buffered else []
        return torch.randn(2, frontend.n_mels, 100), torch.tensor([100, 80]), *context
    frames = spec.window_mel_frames(max(spec.lookaheads), first=False)
    *floats, _ = caches.shapes(spec, 2).values()
    filled = torch.full((2,), spec.left_context_enc_frames)
    prompt = [torch.tensor([0, 1])] if checkpoint.spec.prompt else []
    return (torch.randn(2, frontend.n_mels, frames), torch.full((2,), frames), *map(torch.randn, floats), filled, *prompt)


def _encoder_axes(interface: Interface) -> Axes:
    """Names of the dynamic dimensions: batch and time. In the cache layout kv, caches and what a chunk adds to them have frames
    first."""
    axes: Axes = {name: {0: "batch"} for name in (*interface.inputs, *interface.outputs) if name != ATT_CONTEXT}
    axes["audio_signal"] |= {2: "mel_frames"}
    axes["outputs"] |= {2: "enc_frames"}
    axes |= {name: {1: "batch"} for name in interface.inputs if name.startswith(KV_CACHES)}
    return axes | {name: {0: "enc_frames", 1: "batch"} for name in interface.outputs if "_new_" in name}


KV_CACHES = tuple(f"cache_{name}_" for name in CACHED)


def _export(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    interface: Interface,
    axes: Axes,
    metadata: dict[str, str],
) -> None:
    """Traces a module and writes the graph to `path`, with its weights in one file beside it."""
    # Above 2 GB torch scatters the weights over hundreds of files: let it do so elsewhere, and gather them.
    with tempfile.TemporaryDirectory(dir=path.parent) as scattered:
        raw = Path(scattered) / path.name
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracer warnings on shapes, all of which are meant
            torch.onnx.export(
                module,
                example,
                str(raw),  # a Path makes torch forget that it may write external data
                input_names=list(interface.inputs),
                output_names=list(interface.outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
                custom_opsets={blocked.DOMAIN: 1} if isinstance(module, OfflineEncoder) else None,
                dynamo=False,  # the dynamo exporter cannot keep the time axis dynamic (torch 2.13)
            )
        model = onnx.load(raw, load_external_data=False)  # below protobuf's 2 GB, which `expand` needs
        _name_cache_dimensions(model)
        _read_weights_directly(model)
        _pad_in_convolutions(model)
        model = blocked.expand(model, BLOCKED)  # after what does not look into a Loop
        _make_context_optional(model)
        load_external_data_for_model(model, scattered)
        save_model(model, path, metadata)
    onnx.checker.check_model(str(path))


def _name_cache_dimensions(model: onnx.ModelProto) -> None:
    """Gives each returned cache the dimensions of the one that is fed, but for its frames: the tracer does not infer them and
    invents names."""
    inputs = {i.name: i for i in model.graph.input}
    for output in model.graph.output:
        twin = inputs.get(output.name.removesuffix("_next"))
        if twin is not None:
            output.type.CopyFrom(twin.type)
        elif "_new_" in output.name:
            output.type.CopyFrom(inputs[f"cache_{output.name.replace('_new', '')}"].type)
            output.type.tensor_type.shape.dim[0].dim_param = "enc_frames"


def _make_context_optional(model: onnx.ModelProto) -> None:
    """Gives the context of the attention, where the graph has that input, the full one as its default: what runs offline models
    runs this one."""
    if any(i.name == ATT_CONTEXT for i in model.graph.input):
        model.graph.initializer.append(numpy_helper.from_array(np.array(FULL_CONTEXT, np.int64), ATT_CONTEXT))


def _read_weights_directly(model: onnx.ModelProto) -> None:
    """Removes the Identity nodes that the tracer puts behind equal weights: quantizers look for a weight as an input."""
    weights = {i.name for i in model.graph.initializer}
    _bypass(model, {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Identity" and n.input[0] in weights})


def _pad_in_convolutions(model: onnx.ModelProto) -> None:
    """Moves padding into the Conv behind it, which can pad unevenly, as torch's cannot: a Pad node copies the whole image."""
    pads = {n.output[0]: n for n in model.graph.node if n.op_type == "Pad"}
    padded = [n for n in model.graph.node if n.op_type == "Conv" and n.input[0] in pads]
    for conv in padded:
        attribute = next(a for a in conv.attribute if a.name == "pads")
        attribute.ints[:] = CAUSAL_PADDING
    _bypass(model, {conv.input[0]: pads[conv.input[0]].input[0] for conv in padded})


def _bypass(model: onnx.ModelProto, alias: dict[str, str]) -> None:
    """Replaces tensors, alias: old name -> new name, and removes the nodes that compute the old ones and those that only these
    need."""
    kept = [n for n in model.graph.node if n.output[0] not in alias]
    for node in kept:
        node.input[:] = [alias.get(name, name) for name in node.input]
    read = {o.name for o in model.graph.output}
    nodes = []
    for node in reversed(kept):
        if read.intersection(node.output):
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))  # del would free what the list refers to
            read.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
