"""Encoder and CTC decoder in one graph, which consumers of CTC models load: NeMo exports one, with `logprobs` first."""

from __future__ import annotations

from typing import Any

FRAMES, SCORES, LENGTHS = "outputs", "logprobs", "encoded_lengths"
PREFIX = "ctc_decoder/"  # of the decoder's tensors and nodes, whose names the encoder could have too


def merged(encoder: Any, decoder: Any) -> Any:
    """Joins two onnx.ModelProto with their weights.

    The inputs are the encoder's. The outputs are `logprobs` f32 [B, T', V + 1], `encoded_lengths` i64 [B], which NeMo's graph has
    only with caches, and the encoder's caches. Raises ValueError as onnx.compose, for graphs of different opsets.
    """
    from onnx import compose

    outputs = [SCORES, *(output.name for output in encoder.graph.output if output.name != FRAMES)]
    renamed = compose.add_prefix(decoder, PREFIX, rename_inputs=False, rename_outputs=False)
    whole = compose.merge_models(encoder, renamed, io_map=[(FRAMES, renamed.graph.input[0].name)], outputs=outputs)
    del whole.metadata_props[:]
    whole.metadata_props.extend(encoder.metadata_props)
    values = {value.name: value for value in whole.graph.output}
    del whole.graph.output[:]
    whole.graph.output.extend(values[name] for name in outputs)
    return whole
