"""Rounds weights to the grid that a converter compresses them to, so that the program that the gates run has the rounded ones."""

from __future__ import annotations

import torch
from torch import nn

from nemoport.export.layers import MatMul


def round_weights(module: nn.Module, bits: int, block: int, least: int) -> None:
    """Rounds the weight [in, out] of every MatMul below `module` in place, to symmetric integers of `bits` bits.

    block: number of inputs of an output that share a scale, 0 for all of them; least: weights of fewer values are left as they
    are. A weight that is compressed again by the same rule stays as it is.
    """
    top = 2 ** (bits - 1) - 1
    for part in module.modules():
        if isinstance(part, MatMul) and part.weight.numel() >= least:
            inputs, outputs = part.weight.shape
            grouped = part.weight.data.reshape(-1, block or inputs, outputs)
            scale = grouped.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / top
            part.weight.data = ((grouped / scale).round() * scale).reshape(inputs, outputs)
