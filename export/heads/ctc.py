"""CTC: log-probabilities of tokens and blank, frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemoport.errors import CheckpointError
from nemoport.export.heads import HeadGraph
from nemoport.export.layers import MatMul, Weights
from nemoport.spec import DecodingSpec, ModelSpec


class CtcDecoder(nn.Module):
    """A linear layer and log-softmax (NeMo ConvASRDecoder, whose temperature is 1). Raises CheckpointError for weights of another
    vocabulary."""

    def __init__(self, tensors: dict[str, Tensor], spec: DecodingSpec):
        super().__init__()
        weights = Weights(tensors, "decoder.")
        self.linear = MatMul(weights, "decoder_layers.0")
        self.unused = weights.unused
        if (rows := self.linear.weight.shape[1]) != spec.n_scores:
            raise CheckpointError(
                "The CTC decoder has another vocabulary than the config.",
                expected=f"{spec.n_scores} scores: {spec.vocab_size} tokens and blank",
                found=str(rows),
                todo="save the checkpoint again with NeMo",
            )
        self.eval()

    def forward(self, encoder_outputs: Tensor) -> Tensor:
        """encoder_outputs f32 [B, d, T] -> logprobs f32 [B, T, spec.n_scores]."""
        return torch.log_softmax(self.linear(encoder_outputs.transpose(1, 2)), -1)


def example(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Two streams of three encoder frames."""
    return (torch.randn(2, spec.encoder.d_model, 3),)


GRAPH = HeadGraph(
    CtcDecoder, example, {"encoder_outputs": {0: "batch", 2: "enc_frames"}, "logprobs": {0: "batch", 1: "enc_frames"}}
)
