"""The language prompt: two linear layers behind the encoder, whose input is each frame, joined with the one-hot vector of the
stream's slot (NeMo PromptStreamingMixin). The product with a one-hot vector is a row of the weight, so the graph gathers it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.errors import CheckpointError
from nemoport.export.layers import MatMul, Weights
from nemoport.prompt import PromptSpec


class PromptKernel(nn.Module):
    """The two layers of the prompt. Raises CheckpointError if the weights have another number of slots than the config."""

    def __init__(self, tensors: dict[str, Tensor], spec: PromptSpec, d_model: int):
        super().__init__()
        weights = Weights(tensors, "prompt_kernel.")
        both = weights.take("0.weight")  # [hidden, d_model + slots]: frames first, as NeMo concatenates them
        if both.shape[1] != d_model + spec.slots:
            raise CheckpointError(
                "The prompt's weights do not fit the config.",
                expected=f"prompt_kernel.0.weight of {d_model + spec.slots} columns: {d_model} channels, {spec.slots} slots",
                found=f"{both.shape[1]} columns",
                todo="correct model_defaults.num_prompts, or report this checkpoint",
            )
        self.frames = MatMul(Weights({"frames.weight": both[:, :d_model]}, ""), "frames")
        self.slots = nn.Parameter((both[:, d_model:].t() + weights.take("0.bias")).contiguous())  # [slots, hidden]
        self.out = MatMul(weights, "2")
        self.unused = weights.unused

    def forward(self, x: Tensor, prompt_index: Tensor, time_axis: int) -> Tensor:
        """x: [B, T, d] or [T, B, d], prompt_index: i64 [B] -> the same shape."""
        slots = torch.index_select(self.slots, 0, prompt_index).unsqueeze(time_axis)
        return self.out(F.relu(self.frames(x) + slots))
