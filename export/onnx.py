"""Traces the modules to ONNX: one graph file, one external-data file with a stable name, spec in the metadata."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx.external_data_helper import load_external_data_for_model

from nemoport.artifact import DECODER, ENCODER
from nemoport.contract import CACHED, PROMPT, Caches, KvCaches, NemoCaches, NoCaches, caches_for
from nemoport.errors import CheckpointError
from nemoport.export import blocked, blocked_attention, blocked_subsampling
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.decoder import DecoderJoint
from nemoport.export.encoder import StreamingEncoder
from nemoport.export.encoder_kv import KvStreamingEncoder
from nemoport.export.encoder_offline import OfflineEncoder
from nemoport.export.layers import CAUSAL_PADDING
from nemoport.export.shared import check_frontend_buffers
from nemoport.graph_file import save_model

BLOCKED = {module.NAME: module.BODY for module in (blocked_attention, blocked_subsampling)}
OPSET = 17  # the first with LayerNormalization, and loaded by every runtime of the last years

ENCODER_INPUTS = ("audio_signal", "length")
ENCODER_OUTPUTS = ("outputs", "encoded_lengths")
DECODER_INPUTS = ("encoder_outputs", "targets", "target_length", "input_states_1", "input_states_2")
DECODER_OUTPUTS = ("outputs", "prednet_lengths", "output_states_1", "output_states_2")


ENCODERS = {NemoCaches: StreamingEncoder, KvCaches: KvStreamingEncoder, NoCaches: OfflineEncoder}


def export_graphs(checkpoint: Checkpoint, folder: Path, contract: str) -> None:
    """Writes encoder_model.onnx and decoder_model.onnx with their .data files into `folder`."""
    weights = checkpoint.load_weights()
    check_frontend_buffers(checkpoint, weights)
    spec = checkpoint.spec
    caches = caches_for(spec, contract)
    inputs = (*ENCODER_INPUTS, *caches.shapes(spec.streaming, 1), *([PROMPT] if spec.prompt else []))
    outputs = (*ENCODER_OUTPUTS, *caches.outputs(spec.streaming))
    encoder_example, decoder_example = _encoder_example(checkpoint, caches), _decoder_example(checkpoint)
    with fitting(checkpoint), torch.no_grad():
        decoder = DecoderJoint(weights, spec.decoding)
        encoder = ENCODERS[caches](weights, spec.encoder, *([spec.prompt] if spec.prompt else []))
        decoder(*decoder_example)
        encoder(*encoder_example)
    refuse_unused(checkpoint, encoder.unused + decoder.unused)
    del weights
    metadata = {"nemoport.spec": json.dumps(spec.to_dict()), "nemoport.checkpoint_sha256": checkpoint.sha256}
    _export(encoder, encoder_example, folder / ENCODER, inputs, outputs, metadata)
    del encoder
    _export(decoder, decoder_example, folder / DECODER, DECODER_INPUTS, DECODER_OUTPUTS, metadata)


@contextmanager
def fitting(checkpoint: Checkpoint) -> Iterator[None]:
    """Modules are made and run once within: weights of other shapes than the config's show here, and only they."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint.path} holds weights that do not fit its config.",
            expected=f"tensors for {checkpoint.spec.encoder} and {checkpoint.spec.decoding}"
            + (f", {checkpoint.spec.prompt.slots} prompt slots" if checkpoint.spec.prompt else ""),
            found=(str(error).splitlines() or [type(error).__name__])[0],
            todo="download or save it again; if it stays, report this checkpoint",
        ) from error


def refuse_unused(checkpoint: Checkpoint, unused: list[str]) -> None:
    if unused:
        raise CheckpointError(
            f"{checkpoint.path} holds weights that the exported graph would not use.",
            expected="only the weights of the published structure",
            found=", ".join(unused[:8]) + (f" and {len(unused) - 8} more" if len(unused) > 8 else ""),
            todo="merge adapters into the model, or report this checkpoint",
        )


def _encoder_example(checkpoint: Checkpoint, caches: type[Caches]):
    """Two streams in the middle of their audio, or two utterances: every path is traced, no dimension is 1."""
    spec, frontend = checkpoint.spec.streaming, checkpoint.spec.frontend
    if spec is None:
        return torch.randn(2, frontend.n_mels, 100), torch.tensor([100, 80])
    frames = spec.window_mel_frames(max(spec.lookaheads), first=False)
    *floats, _ = caches.shapes(spec, 2).values()
    filled = torch.full((2,), spec.left_context_enc_frames)
    prompt = [torch.tensor([0, 1])] if checkpoint.spec.prompt else []
    return (torch.randn(2, frontend.n_mels, frames), torch.full((2,), frames), *map(torch.randn, floats), filled, *prompt)


def _decoder_example(checkpoint: Checkpoint):
    spec = checkpoint.spec.decoding
    state = torch.zeros(spec.state_shape(2))
    return (
        torch.randn(2, checkpoint.spec.encoder.d_model, 3),
        torch.zeros(2, 2, dtype=torch.int32),
        torch.full((2,), 2, dtype=torch.int32),
        state,
        state.clone(),
    )


DYNAMIC_AXES = {
    "audio_signal": {0: "batch", 2: "mel_frames"},
    "length": {0: "batch"},
    "cache_last_channel": {0: "batch"},
    "cache_last_time": {0: "batch"},
    "cache_last_channel_len": {0: "batch"},
    "encoded_lengths": {0: "batch"},
    "cache_last_channel_next": {0: "batch"},
    "cache_last_time_next": {0: "batch"},
    "cache_last_channel_next_len": {0: "batch"},
    "cache_len": {0: "batch"},
    PROMPT: {0: "batch"},
    "encoder_outputs": {0: "batch", 2: "enc_frames"},
    "targets": {0: "batch", 1: "tokens"},
    "target_length": {0: "batch"},
    "prednet_lengths": {0: "batch"},
    "input_states_1": {1: "batch"},
    "input_states_2": {1: "batch"},
    "output_states_1": {1: "batch"},
    "output_states_2": {1: "batch"},
}
KV_CACHES = tuple(f"cache_{name}_" for name in CACHED)


def _export(module: torch.nn.Module, example, path: Path, inputs, outputs, metadata: dict[str, str]) -> None:
    axes = {name: DYNAMIC_AXES[name] for name in inputs + outputs if name in DYNAMIC_AXES}
    axes |= {name: {1: "batch"} for name in inputs if name.startswith(KV_CACHES)}
    axes |= {name: {0: "enc_frames", 1: "batch"} for name in outputs if "_new_" in name}
    axes["outputs"] = {0: "batch", 2: "enc_frames"} if path.name == ENCODER else {0: "batch", 1: "enc_frames", 2: "tokens"}
    # Above 2 GB torch scatters the weights over hundreds of files: let it do so elsewhere, and gather them.
    with tempfile.TemporaryDirectory(dir=path.parent) as scattered:
        raw = Path(scattered) / path.name
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracer warnings on shapes, all of which are meant
            torch.onnx.export(
                module,
                example,
                str(raw),  # a Path makes torch forget that it may write external data
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                custom_opsets={blocked.DOMAIN: 1} if isinstance(module, OfflineEncoder) else None,
                dynamo=False,  # the dynamo exporter cannot keep the time axis dynamic (torch 2.13)
            )
        model = onnx.load(raw, load_external_data=False)  # below protobuf's 2 GB, which `expand` needs
        _name_static_dims(model)
        _read_weights_directly(model)
        _pad_in_convolutions(model)
        model = blocked.expand(model, BLOCKED)  # after what does not look into a Loop
        load_external_data_for_model(model, scattered)
        save_model(model, path, metadata)
    onnx.checker.check_model(str(path))


def _name_static_dims(model: onnx.ModelProto) -> None:
    """A cache goes out as it came in, but for its frames; the tracer cannot know, and invents names for dimensions."""
    inputs = {i.name: i for i in model.graph.input}
    for output in model.graph.output:
        twin = inputs.get(output.name.removesuffix("_next"))
        if twin is not None:
            output.type.CopyFrom(twin.type)
        elif "_new_" in output.name:
            output.type.CopyFrom(inputs[f"cache_{output.name.replace('_new', '')}"].type)
            output.type.tensor_type.shape.dim[0].dim_param = "enc_frames"


def _read_weights_directly(model: onnx.ModelProto) -> None:
    """The tracer keeps equal weights once and hands the others on by Identity nodes; quantizers look for a weight."""
    weights = {i.name for i in model.graph.initializer}
    _bypass(model, {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Identity" and n.input[0] in weights})


def _pad_in_convolutions(model: onnx.ModelProto) -> None:
    """A Conv pads by itself, unevenly too, which torch's cannot: a Pad node copies the whole image."""
    pads = {n.output[0]: n for n in model.graph.node if n.op_type == "Pad"}
    padded = [n for n in model.graph.node if n.op_type == "Conv" and n.input[0] in pads]
    for conv in padded:
        attribute = next(a for a in conv.attribute if a.name == "pads")
        attribute.ints[:] = CAUSAL_PADDING
    _bypass(model, {conv.input[0]: pads[conv.input[0]].input[0] for conv in padded})


def _bypass(model: onnx.ModelProto, alias: dict[str, str]) -> None:
    """Drops the nodes that yield the keys; who reads them reads the values. What only they needed goes too."""
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
