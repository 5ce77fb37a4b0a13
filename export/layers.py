"""Parts of all encoders, written for export.

Pointwise convolutions are MatMuls (MatMul-only quantizers reach them), and weights keep their checkpoint names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.errors import CheckpointError

POSITION_BASE = 10000.0  # of the sinusoidal positions, NeMo PositionalEncoding.create_pe
# NeMo CausalConv2D: kernel - 1 before, stride - 1 behind, on time and on mel bands; in the order of ONNX's Conv.
CAUSAL_PADDING = (2, 2, 1, 1)


class Weights:
    """A checkpoint's tensors below a prefix, by name, and a record of those that no module has taken."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str):
        self._prefix = prefix
        self._tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        self._unused = set(self._tensors)

    def take(self, name: str) -> Tensor:
        """Returns a tensor and marks it as used. Raises CheckpointError if there is none of this name."""
        self._unused.discard(name)
        if name not in self._tensors:
            raise CheckpointError(
                "The checkpoint lacks weights that its config requires.",
                expected=f"a tensor {self._prefix}{name}",
                found=f"{len(self._tensors)} tensors below {self._prefix.rstrip('.')}, but not this one",
                todo="save it again with NeMo; if NeMo restores it as it is, report this checkpoint",
            )
        return self._tensors[name]

    def get(self, name: str) -> Tensor | None:
        """As `take`, but None if there is none."""
        return self.take(name) if name in self._tensors else None

    @property
    def unused(self) -> list[str]:
        """Names, without the prefix, of the tensors that were never taken, in order."""
        return sorted(self._unused)


class MatMul(nn.Module):
    """y = x W (+ b). The weight is stored [in, out], as the graph needs it, so that no transpose hides its name."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        weight = weights.take(f"{name}.weight")
        if weight.dim() == 3:  # a pointwise Conv1d: [out, in, 1]
            weight = weight.squeeze(-1)
        bias = weights.get(f"{name}.bias")
        self.weight = nn.Parameter(weight.t().contiguous())
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x, self.weight)
        return y if self.bias is None else y + self.bias

    def scale(self, factor: float) -> None:
        """Multiplies the output by a factor, by way of the weights."""
        for parameter in self.parameters():
            parameter.data = parameter.data * factor


def layer_norm(weights: Weights, name: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(weights.take(f"{name}.weight").shape[0])
    norm.load_state_dict({"weight": weights.take(f"{name}.weight"), "bias": weights.take(f"{name}.bias")})
    return norm


class Subsampling(nn.Module):
    """Causal dw_striding by 8 (NeMo ConvSubsampling, MaskedConvSequential): mel [B, T, n_mels] -> [B, T', d_model].

    Frames behind a stream's length are zeroed before each strided convolution, so that what stands there has no effect.
    """

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        # conv.0: full; then pairs of depthwise (conv.2, .5) and pointwise (conv.3, .6); all followed by ReLU
        self.first = _conv(weights, f"{name}.conv.0", stride=2)
        self.depthwise = nn.ModuleList(_conv(weights, f"{name}.conv.{i}", stride=2, depthwise=True) for i in (2, 5))
        self.pointwise = nn.ModuleList(_conv(weights, f"{name}.conv.{i}", stride=1) for i in (3, 6))
        self.out = MatMul(weights, f"{name}.out")

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = mel.unsqueeze(1)  # [B, 1, T, n_mels]
        x = F.relu(self.first(causal_pad(_mask(x, lengths))))
        lengths = halve(lengths)
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = F.relu(pointwise(depthwise(causal_pad(_mask(x, lengths)))))
            lengths = halve(lengths)
        x = x.transpose(1, 2).reshape(mel.size(0), -1, self.out.weight.shape[0])
        return self.out(x), lengths


def _conv(weights: Weights, name: str, stride: int, depthwise: bool = False) -> nn.Conv2d:
    weight, bias = weights.take(f"{name}.weight"), weights.take(f"{name}.bias")
    channels_out, channels_in, kernel, _ = weight.shape
    groups = channels_out if depthwise else 1
    conv = nn.Conv2d(channels_in * groups, channels_out, kernel, stride, groups=groups)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv


def causal_pad(x: Tensor) -> Tensor:
    """Pads frames and mel bands of [B, C, T, F] by CAUSAL_PADDING."""
    top, left, bottom, right = CAUSAL_PADDING
    return F.pad(x, (left, right, top, bottom))


def _mask(x: Tensor, lengths: Tensor) -> Tensor:
    """Zeroes the frames of x [B, C, T, F] at and behind lengths [B]."""
    valid = torch.arange(x.size(2), device=x.device).unsqueeze(0) < lengths.unsqueeze(1)
    return x * valid[:, None, :, None].to(x.dtype)


def halve(lengths: Tensor) -> Tensor:
    """Frames behind one causal convolution of stride 2, for so many before it."""
    return torch.div(lengths, 2, rounding_mode="trunc") + 1  # (n + 3 - 3) // 2 + 1; floor would be ten nodes


class FeedForward(nn.Module):
    """Two linear layers with SiLU between them (NeMo ConformerFeedForward)."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.linear1 = MatMul(weights, f"{name}.linear1")
        self.linear2 = MatMul(weights, f"{name}.linear2")

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(x)))


class ConformerLayer(nn.Module):
    """Half feed forward, attention, convolution, half feed forward (NeMo ConformerLayer).

    attention, convolution: modules of the cache layout; each is called with the frames and the further arguments that `forward`
    is given for it, and returns new frames and what the next chunk needs. fold_half: multiply the weights of the feed forward
    modules by a half, which saves two nodes, or their outputs: both functions have the same bits, but not when quantized.
    """

    def __init__(self, weights: Weights, name: str, attention: nn.Module, convolution: nn.Module, fold_half: bool = True):
        super().__init__()
        self.fold_half = fold_half
        self.norm_feed_forward1 = layer_norm(weights, f"{name}.norm_feed_forward1")
        self.feed_forward1 = FeedForward(weights, f"{name}.feed_forward1")
        self.norm_self_att = layer_norm(weights, f"{name}.norm_self_att")
        self.self_attn = attention
        self.norm_conv = layer_norm(weights, f"{name}.norm_conv")
        self.conv = convolution
        self.norm_feed_forward2 = layer_norm(weights, f"{name}.norm_feed_forward2")
        self.feed_forward2 = FeedForward(weights, f"{name}.feed_forward2")
        self.norm_out = layer_norm(weights, f"{name}.norm_out")
        for feed_forward in (self.feed_forward1, self.feed_forward2) if fold_half else ():
            feed_forward.linear2.scale(0.5)  # a power of two: the same bits as halving afterwards

    def forward(self, x: Tensor, attention: tuple, convolution: tuple) -> tuple[Tensor, ...]:
        """x: [B, T, d] or [T, B, d], as both modules take it -> the same, and what attention and convolution keep."""
        x = x + self._half(self.feed_forward1(self.norm_feed_forward1(x)))
        attended, *attention_kept = self.self_attn(self.norm_self_att(x), *attention)
        x = x + attended
        convolved, *convolution_kept = self.conv(self.norm_conv(x), *convolution)
        x = x + convolved
        x = x + self._half(self.feed_forward2(self.norm_feed_forward2(x)))
        return self.norm_out(x), *attention_kept, *convolution_kept

    def _half(self, x: Tensor) -> Tensor:
        return x if self.fold_half else x * 0.5


class SelfAttentionWeights(nn.Module):
    """Weights of attention with relative positions (Transformer-XL, arXiv 1901.02860, section 3.3), of every encoder."""

    def __init__(self, weights: Weights, name: str, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.linear_q = MatMul(weights, f"{name}.linear_q")
        self.linear_k = MatMul(weights, f"{name}.linear_k")
        self.linear_v = MatMul(weights, f"{name}.linear_v")
        self.linear_out = MatMul(weights, f"{name}.linear_out")
        self.pos_bias_u = nn.Parameter(weights.take(f"{name}.pos_bias_u"))
        self.pos_bias_v = nn.Parameter(weights.take(f"{name}.pos_bias_v"))

    def split(self, x: Tensor) -> Tensor:
        """Splits [B, T, d] into heads: [B, T, h, d_k]."""
        return x.view(x.size(0), x.size(1), self.n_heads, -1)

    def scale_queries(self, d_k: int) -> None:
        """Multiplies the scores by 1 / sqrt(d_k), by way of the queries' weights and of the two biases that are added to them."""
        factor = 1.0 / math.sqrt(d_k)
        self.linear_q.scale(factor)
        for bias in (self.pos_bias_u, self.pos_bias_v):
            bias.data = bias.data * factor


class CachedAttentionWeights(SelfAttentionWeights):
    """Weights of attention over cached keys and values. Projections of the relative positions, which depend on weights only,
    are a constant, and the factor of the scores stands in the weights."""

    def __init__(self, weights: Weights, name: str, n_heads: int, positions: Tensor):
        """positions: [P, d_model], from the furthest past to the furthest future."""
        super().__init__(weights, name, n_heads)
        projected = positions @ weights.take(f"{name}.linear_pos.weight").t()
        self.positions = nn.Parameter(heads(projected, n_heads).contiguous().unsqueeze(0))  # [1, h, d_k, P]
        self.scale_queries(self.positions.size(2))


class ConvolutionWeights(nn.Module):
    """Weights of the convolution of cache-aware encoders: GLU, causal depthwise convolution, LayerNorm, SiLU."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.pointwise_conv1 = MatMul(weights, f"{name}.pointwise_conv1")
        self.pointwise_conv2 = MatMul(weights, f"{name}.pointwise_conv2")
        self.depthwise_weight = nn.Parameter(weights.take(f"{name}.depthwise_conv.weight"))  # [d, 1, k]
        bias = weights.get(f"{name}.depthwise_conv.bias")
        self.depthwise_bias = None if bias is None else nn.Parameter(bias)
        self.norm = layer_norm(weights, f"{name}.batch_norm")  # NeMo's name for any norm that stands here


def heads(projected: Tensor, n_heads: int) -> Tensor:
    """Splits [P, d] into heads: [h, d_k, P]."""
    return projected.view(projected.size(0), n_heads, -1).permute(1, 2, 0)


def rates(d_model: int) -> Tensor:
    """Radians per frame of each pair of channels, [d_model / 2] (NeMo PositionalEncoding.create_pe)."""
    return torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * -(math.log(POSITION_BASE) / d_model))


def sinusoids(positions: range, d_model: int) -> Tensor:
    """Sinusoidal positions, [len(positions), d_model]: sine in even and cosine in odd channels."""
    angles = torch.tensor(list(positions), dtype=torch.float32).unsqueeze(1) * rates(d_model)
    table = torch.zeros(angles.size(0), d_model)
    table[:, 0::2] = torch.sin(angles)
    table[:, 1::2] = torch.cos(angles)
    return table
