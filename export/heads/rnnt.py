"""RNNT: prediction network and joint in one graph."""

from __future__ import annotations

import torch
from torch import Tensor

from nemoport.export.decoder import DecoderJoint
from nemoport.export.heads import HeadGraph
from nemoport.spec import ModelSpec


def transducer_example(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Inputs of the fused prediction network and joint: two streams, three encoder frames, two tokens."""
    state = torch.zeros(spec.decoding.state_shape(2))
    return (
        torch.randn(2, spec.encoder.d_model, 3),
        torch.zeros(2, 2, dtype=torch.int32),
        torch.full((2,), 2, dtype=torch.int32),
        state,
        state.clone(),
    )


GRAPH = HeadGraph(
    DecoderJoint,
    transducer_example,
    {
        "encoder_outputs": {0: "batch", 2: "enc_frames"},
        "targets": {0: "batch", 1: "tokens"},
        "target_length": {0: "batch"},
        "outputs": {0: "batch", 1: "enc_frames", 2: "tokens"},
        "prednet_lengths": {0: "batch"},
        "input_states_1": {1: "batch"},
        "input_states_2": {1: "batch"},
        "output_states_1": {1: "batch"},
        "output_states_2": {1: "batch"},
    },
)
