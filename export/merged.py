"""Encoder and CTC decoder in one graph, which consumers of CTC models load: NeMo exports one, with `logprobs` first."""

from __future__ import annotations

from typing import Any

FRAMES, SCORES = "outputs", "logprobs"
PREFIX = "ctc_decoder/"  # of the decoder's tensors and nodes, whose names the encoder could have too


def merged(encoder: Any, decoder: Any) -> Any:
    """Joins two onnx.ModelProto with their weights.

    The inputs are the encoder's. The outputs are `logprobs` f32 [B, T', V + 1], `encoded_lengths` i64 [B], which NeMo's graph has
    only with caches, and the encoder's caches. The decoder is converted to the encoder's opset, which 8-bit blocks raise.
    (onnx.compose.merge_models refuses graphs of different opsets and IR versions.)
    """
    from onnx import ModelProto, compose, version_converter

    whole = ModelProto()
    whole.CopyFrom(encoder)
    versions = {opset.domain: opset.version for opset in encoder.opset_import}
    part = version_converter.convert_version(decoder, versions[""])
    part = compose.add_prefix(part, PREFIX, rename_inputs=False, rename_outputs=False)
    for opset in part.opset_import:
        if opset.domain not in versions:
            whole.opset_import.add(domain=opset.domain, version=opset.version)
    whole.ir_version = max(encoder.ir_version, part.ir_version)
    graph, (frames,) = whole.graph, part.graph.input
    for node in part.graph.node:
        node.input[:] = [FRAMES if name == frames.name else name for name in node.input]
    graph.node.extend(part.graph.node)
    graph.initializer.extend(part.graph.initializer)
    graph.value_info.extend(part.graph.value_info)
    graph.value_info.extend(output for output in encoder.graph.output if output.name == FRAMES)
    del graph.output[:]
    graph.output.extend([*part.graph.output, *(output for output in encoder.graph.output if output.name != FRAMES)])
    return whole
