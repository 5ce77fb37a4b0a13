"""Linear layers whose weights are rounded in each forward pass, to the integers that the exported graph will hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nemoport.quantize.blocks import LIMITS


class _Rounded(torch.autograd.Function):
    """Integers times scales. The gradient passes the rounding (straight-through) where the weight is within the integers' range,
    and a scale's is that of the weights that it multiplies (learned step size, arXiv:1902.08153)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scales: Tensor, size: int, low: int, high: int) -> Tensor:
        ctx.save_for_backward(weight, scales)
        ctx.size, ctx.low, ctx.high = size, low, high
        steps = _steps(scales, size, weight.size(0))
        return torch.clamp(torch.round(weight / steps), low, high) * steps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        weight, scales = ctx.saved_tensors
        steps = _steps(scales, ctx.size, weight.size(0))
        ratio = weight / steps
        integers = torch.clamp(torch.round(ratio), ctx.low, ctx.high)
        within = (ratio > ctx.low - 0.5) & (ratio < ctx.high + 0.5)
        to_scales = gradient * torch.where(within, integers - ratio, integers)
        padded = to_scales.new_zeros(scales.size(0) * ctx.size, scales.size(1))
        padded[: len(to_scales)] = to_scales
        return gradient * within, padded.view(scales.size(0), ctx.size, -1).sum(1), None, None, None


def _steps(scales: Tensor, size: int, rows: int) -> Tensor:
    return scales.repeat_interleave(size, 0)[:rows]


class LowBitMatMul(nn.Module):
    """y = x W (+ b), with W rounded in blocks of input channels. weight: f32 [in, out], which is trained; scales: f32
    [blocks, out], of either sign; bits, size: of the blocks; bias: f32 [out] or None."""

    def __init__(self, weight: Tensor, scales: Tensor, bits: int, size: int, bias: nn.Parameter | None):
        super().__init__()
        self.weight, self.scales, self.bias = nn.Parameter(weight), nn.Parameter(scales), bias
        self.bits, self.size = bits, size

    def rounded(self) -> Tensor:
        """The weight as the exported graph will have it, f32 [in, out]."""
        return _Rounded.apply(self.weight, self.scales, self.size, *LIMITS[self.bits])  # pyright: ignore[reportReturnType]

    def integers(self) -> Tensor:
        """i8 [in, out]."""
        ratio = self.weight.detach() / _steps(self.scales.detach(), self.size, self.weight.size(0))
        return torch.clamp(torch.round(ratio), *LIMITS[self.bits]).to(torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x, self.rounded())
        return y if self.bias is None else y + self.bias
