"""The graphs of heads (nemoport/heads.py): the module that is traced for each, and an example of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nemoport.export.decoder import DecoderJoint
from nemoport.spec import DecodingSpec, ModelSpec

Axes = dict[str, dict[int, str]]  # tensor -> names of its dynamic dimensions


@dataclass(frozen=True)
class HeadGraph:
    """build: the module from a checkpoint's tensors, with `unused`, the names of the weights that it does not use; example:
    inputs to trace it with, none of whose dynamic dimensions is 1."""

    build: Callable[[dict[str, Tensor], DecodingSpec], DecoderJoint]
    example: Callable[[ModelSpec], tuple[Tensor, ...]]
    axes: Axes


def transducer_example(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Two streams, three frames, two tokens."""
    state = torch.zeros(spec.decoding.state_shape(2))
    return (
        torch.randn(2, spec.encoder.d_model, 3),
        torch.zeros(2, 2, dtype=torch.int32),
        torch.full((2,), 2, dtype=torch.int32),
        state,
        state.clone(),
    )


TRANSDUCER = HeadGraph(
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
HEAD_GRAPHS = {"rnnt": TRANSDUCER, "tdt": TRANSDUCER}
