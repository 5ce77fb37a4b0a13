"""Rounds weights to the grid that a converter compresses them to, so that the program that is proven has the rounded ones."""

from __future__ import annotations

import torch
from torch import nn

from nemoport.export.layers import MatMul


def round_weights(module: nn.Module, bits: int, block: int, least: int) -> None:
    """Every product's weight [in, out] of at least so many values, in place: symmetric, one scale for `block` inputs of an
    output, or for all of them where it is 0. Compressed again by the same rule, they stay as they are."""
    top = 2 ** (bits - 1) - 1
    for part in module.modules():
        if isinstance(part, MatMul) and part.weight.numel() >= least:
            inputs, outputs = part.weight.shape
            grouped = part.weight.data.reshape(-1, block or inputs, outputs)
            scale = grouped.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / top
            part.weight.data = ((grouped / scale).round() * scale).reshape(inputs, outputs)
