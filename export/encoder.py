"""The cache-aware FastConformer encoder as traced for the `nemo` contract.

Same function as NeMo's `ConformerEncoder.forward_for_export` with its caches, written for export: pointwise
convolutions are MatMuls (MatMul-only quantizers reach them), weights keep their checkpoint names, and the projections
of the relative positions, which depend on weights only, are constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.operators import shape_as_tensor

from nemoport.errors import CheckpointError
from nemoport.spec import StreamingSpec

MASKED = -10000.0  # NeMo multi_head_attention.INF_VAL; finite in fp16, and exp(-10000) is 0 in fp32
POSITION_BASE = 10000.0  # of the sinusoidal positions, NeMo PositionalEncoding.create_pe


class Weights:
    """Hands out a checkpoint's tensors by name and knows which were never asked for."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str):
        self._prefix = prefix
        self._tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        self._unused = set(self._tensors)

    def take(self, name: str) -> Tensor:
        """Raises CheckpointError if there is none of this name."""
        self._unused.discard(name)
        if name not in self._tensors:
            raise CheckpointError(
                "The checkpoint lacks weights that its config asks for.",
                expected=f"a tensor {self._prefix}{name}",
                found=f"{len(self._tensors)} tensors below {self._prefix.rstrip('.')}, but not this one",
                todo="download or save it again; if it stays, report this checkpoint",
            )
        return self._tensors[name]

    def get(self, name: str) -> Tensor | None:
        return self.take(name) if name in self._tensors else None

    @property
    def unused(self) -> list[str]:
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


def layer_norm(weights: Weights, name: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(weights.take(f"{name}.weight").shape[0])
    norm.load_state_dict({"weight": weights.take(f"{name}.weight"), "bias": weights.take(f"{name}.bias")})
    return norm


class Subsampling(nn.Module):
    """Causal dw_striding by 8 (NeMo ConvSubsampling, MaskedConvSequential): mel [B, T, n_mels] -> [B, T', d_model].

    Frames behind a stream's length are zeroed before each strided convolution, so that what stands there is never seen.
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
        x = F.relu(self.first(_pad(_mask(x, lengths))))
        lengths = _halve(lengths)
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = F.relu(pointwise(depthwise(_pad(_mask(x, lengths)))))
            lengths = _halve(lengths)
        return self.out(x.transpose(1, 2).flatten(2)), lengths


def _conv(weights: Weights, name: str, stride: int, depthwise: bool = False) -> nn.Conv2d:
    weight, bias = weights.take(f"{name}.weight"), weights.take(f"{name}.bias")
    channels_out, channels_in, kernel, _ = weight.shape
    groups = channels_out if depthwise else 1
    conv = nn.Conv2d(channels_in * groups, channels_out, kernel, stride, groups=groups)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv


def _pad(x: Tensor) -> Tensor:
    return F.pad(x, (2, 1, 2, 1))  # CausalConv2D: kernel - 1 before, stride - 1 behind, on time and on mel bands


def _mask(x: Tensor, lengths: Tensor) -> Tensor:
    """x: [B, C, T, F]; zeroes frames at and behind lengths [B]."""
    valid = torch.arange(x.size(2), device=x.device).unsqueeze(0) < lengths.unsqueeze(1)
    return x * valid[:, None, :, None].to(x.dtype)


def _halve(lengths: Tensor) -> Tensor:
    return torch.div(lengths, 2, rounding_mode="floor") + 1  # (n + 3 - 3) // 2 + 1


class FeedForward(nn.Module):
    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.linear1 = MatMul(weights, f"{name}.linear1")
        self.linear2 = MatMul(weights, f"{name}.linear2")

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(x)))


class SelfAttention(nn.Module):
    """Transformer-XL attention (arXiv 1901.02860, section 3.3) over the cached layer inputs and the new frames."""

    def __init__(self, weights: Weights, name: str, n_heads: int, positions: Tensor):
        super().__init__()
        self.n_heads = n_heads
        self.linear_q = MatMul(weights, f"{name}.linear_q")
        self.linear_k = MatMul(weights, f"{name}.linear_k")
        self.linear_v = MatMul(weights, f"{name}.linear_v")
        self.linear_out = MatMul(weights, f"{name}.linear_out")
        self.pos_bias_u = nn.Parameter(weights.take(f"{name}.pos_bias_u"))
        self.pos_bias_v = nn.Parameter(weights.take(f"{name}.pos_bias_v"))
        projected = positions @ weights.take(f"{name}.linear_pos.weight").t()  # [P, d_model]
        heads = projected.view(projected.size(0), n_heads, -1).permute(1, 2, 0)
        self.positions = nn.Parameter(heads.contiguous())  # [heads, d_k, P]

    def forward(self, x: Tensor, cache: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, T, d], cache: [B, C, d], mask: [B, 1, 1, C + T] added to the scores -> ([B, T, d], next cache)."""
        batch, new, left = x.size(0), x.size(1), cache.size(1)
        memory = torch.cat([cache, x], 1)
        query = self._split(self.linear_q(x))
        key = self._split(self.linear_k(memory)).permute(0, 2, 3, 1)  # [B, h, d_k, C + T]
        value = self._split(self.linear_v(memory)).transpose(1, 2)
        content = torch.matmul((query + self.pos_bias_u).transpose(1, 2), key)
        # The table runs from the furthest past to the furthest future of the longest chunk; this chunk needs its
        # middle: positions C + T - 1 down to -(T - 1).
        longest = (self.positions.size(2) - left + 1) // 2
        table = self.positions[:, :, longest - new : longest + left + new - 1]
        position = torch.matmul((query + self.pos_bias_v).transpose(1, 2), table)  # [B, h, T, C + 2T - 1]
        # Row i needs columns T - 1 - i onward: with one more column, that is a plain offset into the flat rows.
        width = left + 2 * new - 1
        flat = F.pad(position, (0, 1)).flatten(2)[:, :, new - 1 : new - 1 + new * width]
        position = flat.view(batch, self.n_heads, new, width)[:, :, :, : left + new]
        scores = (content + position) * (1.0 / math.sqrt(self.positions.size(1))) + mask
        context = torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2).flatten(2)
        return self.linear_out(context), memory[:, new:]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.n_heads, -1)


class Convolution(nn.Module):
    """GLU, causal depthwise convolution with a cache of kernel - 1 frames, LayerNorm, SiLU."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.pointwise_conv1 = MatMul(weights, f"{name}.pointwise_conv1")
        self.pointwise_conv2 = MatMul(weights, f"{name}.pointwise_conv2")
        self.depthwise_weight = nn.Parameter(weights.take(f"{name}.depthwise_conv.weight"))
        bias = weights.get(f"{name}.depthwise_conv.bias")
        self.depthwise_bias = None if bias is None else nn.Parameter(bias)
        self.norm = layer_norm(weights, f"{name}.batch_norm")  # NeMo's name for any norm that stands here

    def forward(self, x: Tensor, cache: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, T, d], cache: [B, d, k - 1], valid: [B, T, 1] of 0 and 1 -> ([B, T, d], next cache)."""
        value, gate = self.pointwise_conv1(x).chunk(2, -1)
        x = (value * torch.sigmoid(gate) * valid).transpose(1, 2)
        x = torch.cat([cache, x], 2)
        cache_next = x[:, :, -cache.size(2) :]
        x = F.conv1d(x, self.depthwise_weight, self.depthwise_bias, groups=self.depthwise_weight.size(0))
        return self.pointwise_conv2(F.silu(self.norm(x.transpose(1, 2)))), cache_next


class ConformerLayer(nn.Module):
    def __init__(self, weights: Weights, name: str, n_heads: int, positions: Tensor):
        super().__init__()
        self.norm_feed_forward1 = layer_norm(weights, f"{name}.norm_feed_forward1")
        self.feed_forward1 = FeedForward(weights, f"{name}.feed_forward1")
        self.norm_self_att = layer_norm(weights, f"{name}.norm_self_att")
        self.self_attn = SelfAttention(weights, f"{name}.self_attn", n_heads, positions)
        self.norm_conv = layer_norm(weights, f"{name}.norm_conv")
        self.conv = Convolution(weights, f"{name}.conv")
        self.norm_feed_forward2 = layer_norm(weights, f"{name}.norm_feed_forward2")
        self.feed_forward2 = FeedForward(weights, f"{name}.feed_forward2")
        self.norm_out = layer_norm(weights, f"{name}.norm_out")

    def forward(self, x: Tensor, channel: Tensor, time: Tensor, mask: Tensor, valid: Tensor):
        x = x + self.feed_forward1(self.norm_feed_forward1(x)) * 0.5
        attended, channel = self.self_attn(self.norm_self_att(x), channel, mask)
        x = x + attended
        convolved, time = self.conv(self.norm_conv(x), time, valid)
        x = x + convolved
        x = x + self.feed_forward2(self.norm_feed_forward2(x)) * 0.5
        return self.norm_out(x), channel, time


class StreamingEncoder(nn.Module):
    """NeMo's cached encoder for every lookahead of the checkpoint.

    A first chunk has T = 1 + 8r mel frames and drops nothing; a later one has 9 + 8(r + 1) and drops the two encoder
    frames that its mel cache yields. The graph tells them apart without another input: a chunk is a later one if a
    cache is not empty, or if T is one of the later lengths, which no first length equals (checkpoint.py refuses
    lookaheads where one would). So a consumer that always feeds nine zero frames first gets what NeMo's
    `pad_and_drop_preencoded` gives. A stream shorter than its first chunk is padded to it, with `length` telling.
    """

    def __init__(self, tensors: dict[str, Tensor], spec: StreamingSpec):
        super().__init__()
        weights = Weights(tensors, "encoder.")
        self.spec = spec
        longest = spec.max_chunk_enc_frames
        positions = sinusoids(range(spec.left_context_enc_frames + longest - 1, -longest, -1), spec.d_model)
        self.pre_encode = Subsampling(weights, "pre_encode")
        self.layers = nn.ModuleList(
            ConformerLayer(weights, f"layers.{i}", spec.n_heads, positions) for i in range(spec.n_layers)
        )
        later = [spec.window_mel_frames(r, first=False) for r in spec.lookaheads]
        self.register_buffer("later_windows", torch.tensor(later), persistent=False)
        self.unused = weights.unused
        self.eval()

    def forward(self, audio_signal, length, cache_last_channel, cache_last_time, cache_last_channel_len):
        """Shapes as NeMo exports them, batch first:

        audio_signal f32 [B, n_mels, T]; length i64 [B], valid mel frames, cache included; cache_last_channel f32
        [B, layers, C, d]; cache_last_time f32 [B, layers, d, k - 1]; cache_last_channel_len i64 [B] ->
        outputs f32 [B, d, T'], encoded_lengths i64 [B] and the three caches, next.
        """
        left = self.spec.left_context_enc_frames
        x, length = self.pre_encode(audio_signal.transpose(1, 2), length)
        frames = shape_as_tensor(audio_signal)[2]
        later = (frames == self.later_windows).any() | (cache_last_channel_len > 0).any()
        drop = later.to(torch.int64) * self.spec.drop_enc_frames
        x = x[:, drop:]
        length = torch.clamp(length - drop, min=0)

        key = torch.arange(left + x.size(1), device=x.device).unsqueeze(0)
        seen = (key >= (left - cache_last_channel_len).unsqueeze(1)) & (key < (left + length).unsqueeze(1))
        mask = torch.where(seen, 0.0, MASKED)[:, None, None, :]
        valid = seen[:, left:].to(x.dtype).unsqueeze(2)

        channels, times = [], []
        for i, layer in enumerate(self.layers):
            x, channel, time = layer(x, cache_last_channel[:, i], cache_last_time[:, i], mask, valid)
            channels.append(channel)
            times.append(time)
        # The cache length grows by the chunk's frames, not by the valid ones (NeMo; a short chunk ends its stream).
        channel_len = torch.clamp(cache_last_channel_len + x.size(1), max=left)
        return x.transpose(1, 2), length, torch.stack(channels, 1), torch.stack(times, 1), channel_len


def sinusoids(positions: range, d_model: int) -> Tensor:
    """[len(positions), d_model]; sine in even and cosine in odd channels (NeMo PositionalEncoding.create_pe)."""
    position = torch.tensor(list(positions), dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * -(math.log(POSITION_BASE) / d_model))
    table = torch.zeros(position.size(0), d_model)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table
