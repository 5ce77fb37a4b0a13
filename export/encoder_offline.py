"""The full-context FastConformer encoder as traced: NeMo's `ConformerEncoder.forward_internal` without caches.

It takes any number of frames: positions are computed from their angles, not read from a table of limited length (NeMo's own
export ends at 5000 frames, 400 s), and subsampling and attention run in blocks (blocked_*.py). Batch normalisation, which at
inference is a factor and a sum for each channel, is folded into the depthwise convolution before it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.export.blocked_attention import LimitedAttention, RelativeAttention
from nemoport.export.blocked_subsampling import CentredSubsampling
from nemoport.export.layers import CachedAttentionWeights, ConformerLayer, MatMul, SelfAttentionWeights, Weights, rates, sinusoids
from nemoport.export.local_attention import LocalAttention
from nemoport.spec import MASKED_SCORE, OfflineSpec

BATCH_NORM_EPSILON = 1e-5  # torch's default, which NeMo takes


class Subsampling(nn.Module):
    """dw_striding by 8, centred (NeMo ConvSubsampling, MaskedConvSequential): mel [B, T, n_mels] -> [B, T', d_model]."""

    CONVOLUTIONS = (0, 2, 3, 5, 6)  # full, then depthwise and pointwise twice

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        names = [f"{name}.conv.{i}.{part}" for i in self.CONVOLUTIONS for part in ("weight", "bias")]
        self.convolutions = nn.ParameterList(weights.take(n) for n in names)
        self.out = MatMul(weights, f"{name}.out")
        self.width = int(self.out.weight.shape[0])  # here, because in `forward` a traced shape is a tensor

    def forward(self, mel: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        valid = torch.arange(mel.size(1), device=mel.device).unsqueeze(0) < length.unsqueeze(1)
        mel = mel * valid.unsqueeze(2).to(mel.dtype)
        lengths = [length]
        for _ in range(3):  # (n + 2 - 3) // 2 + 1; nothing is negative here, and floor would be ten nodes
            lengths.append(torch.div(lengths[-1] + 1, 2, rounding_mode="trunc"))
        frames = CentredSubsampling.apply(self.width, mel.unsqueeze(1), *lengths[1:3], *self.convolutions)
        return self.out(frames), lengths[3]


class SelfAttention(SelfAttentionWeights):
    """Attention over all frames of an utterance, or over those that each sees."""

    def __init__(self, weights: Weights, name: str, n_heads: int):
        super().__init__(weights, name, n_heads)
        self.linear_pos = MatMul(weights, f"{name}.linear_pos")
        # `positions` holds all sines, then all cosines; in NeMo's they alternate.
        self.linear_pos.weight.data = torch.cat([self.linear_pos.weight[0::2], self.linear_pos.weight[1::2]]).detach()
        self.scale_queries(self.linear_q.weight.size(1) // n_heads)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, *limits: Tensor) -> tuple[Tensor]:
        """x: [B, T, d]; positions: [P, d], from the furthest past; mask: [B, 1, 1, T], added to the scores; limits: none, or what
        LimitedAttention takes -> [B, T, d]."""
        query, key, value = (self.split(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v))
        context = (LimitedAttention if limits else RelativeAttention).apply(
            (query + self.pos_bias_u).transpose(1, 2),
            (query + self.pos_bias_v).transpose(1, 2),
            key.permute(0, 2, 3, 1),
            value.transpose(1, 2),
            self.split(self.linear_pos(positions).unsqueeze(0)).permute(0, 2, 3, 1),
            mask,
            *limits,
        )
        return (self.linear_out(context.transpose(1, 2).flatten(2)),)


class LocalSelfAttention(CachedAttentionWeights):
    """Attention over the frames of a window around each, whose positions are the same at any length."""

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor]:
        """x: [B, T, d]; mask: [B, 1, 1, T], added to the scores -> [B, T, d]."""
        query, key, value = (self.split(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v))
        context = LocalAttention.apply(
            (query + self.pos_bias_u).transpose(1, 2),
            (query + self.pos_bias_v).transpose(1, 2),
            key.permute(0, 2, 3, 1),
            value.transpose(1, 2),
            self.positions,
            mask,
        )
        return (self.linear_out(context.transpose(1, 2).flatten(2)),)


class Convolution(nn.Module):
    """GLU, depthwise convolution centred on its frame, batch normalisation, SiLU."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.pointwise_conv1 = MatMul(weights, f"{name}.pointwise_conv1")
        self.pointwise_conv2 = MatMul(weights, f"{name}.pointwise_conv2")
        factor, shift = _batch_norm(weights, f"{name}.batch_norm")
        weight, bias = weights.take(f"{name}.depthwise_conv.weight"), weights.get(f"{name}.depthwise_conv.bias")
        # In two dimensions, one of them 1: onnxruntime has a depthwise kernel for that.
        self.depthwise_weight = nn.Parameter((weight * factor[:, None, None]).unsqueeze(2))
        self.depthwise_bias = nn.Parameter(shift if bias is None else shift + bias * factor)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor]:
        """x: [B, T, d]; valid: [B, T, 1] of 0 and 1, so that frames behind an utterance have no effect on it -> [B, T, d]."""
        channels, _, _, kernel = self.depthwise_weight.shape
        value, gate = self.pointwise_conv1(x).split(channels, -1)
        x = (value * torch.sigmoid(gate) * valid).transpose(1, 2).unsqueeze(2)
        x = F.conv2d(x, self.depthwise_weight, self.depthwise_bias, padding=(0, kernel // 2), groups=channels)
        return (self.pointwise_conv2(F.silu(x.squeeze(2).transpose(1, 2))),)


def _batch_norm(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    """Factor [d] and shift [d] of a batch normalisation at inference."""
    weights.get(f"{name}.num_batches_tracked")
    deviation = torch.sqrt(weights.take(f"{name}.running_var").double() + BATCH_NORM_EPSILON)
    factor = weights.take(f"{name}.weight").double() / deviation
    shift = weights.take(f"{name}.bias").double() - weights.take(f"{name}.running_mean").double() * factor
    return factor.float(), shift.float()


class OfflineEncoder(nn.Module):
    """The whole encoder, from a checkpoint's tensors by name; `unused` lists those of the encoder that it does not use. Raises
    CheckpointError for tensors that are absent."""

    rates: Tensor
    window: int | None

    def __init__(self, tensors: dict[str, Tensor], spec: OfflineSpec):
        super().__init__()
        weights = Weights(tensors, "encoder.")
        self.pre_encode = Subsampling(weights, "pre_encode")
        attention, window = SelfAttention, spec.attention_enc_frames
        if window is not None:
            attention = partial(LocalSelfAttention, positions=sinusoids(range(window, -window - 1, -1), spec.d_model))
        self.layers = nn.ModuleList(
            ConformerLayer(
                weights,
                name := f"layers.{i}",
                attention(weights, f"{name}.self_attn", spec.n_heads),
                Convolution(weights, f"{name}.conv"),
            )
            for i in range(spec.n_layers)
        )
        self.register_buffer("rates", rates(spec.d_model), persistent=False)
        self.window = window
        self.unused = weights.unused
        self.eval()

    def forward(self, audio_signal: Tensor, length: Tensor, att_context_size: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs a batch of whole utterances, or of windows of buffered streaming.

        audio_signal f32 [B, n_mels, T]; length i64 [B], valid mel frames -> outputs f32 [B, d, T'], encoded_lengths i64 [B].
        Frames behind an utterance's length have no effect on it. att_context_size i64 [3], of a buffered model: left context,
        chunk and right context of the attention, in encoder frames; a chunk of less than 1: full context.
        """
        x, length = self.pre_encode(audio_signal.transpose(1, 2), length)
        frames = x.size(1)
        limits = () if att_context_size is None else _limits(frames, att_context_size)
        filled = torch.arange(frames, device=x.device).unsqueeze(0) < length.unsqueeze(1)
        mask = torch.where(filled, 0.0, MASKED_SCORE)[:, None, None, :]
        valid = filled.to(x.dtype).unsqueeze(2)
        seen = (mask,) if self.window is not None else (self._positions(frames), mask, *limits)
        for layer in self.layers:
            (x,) = layer(x, seen, (valid,))
        return x.transpose(1, 2), length

    def _positions(self, frames: int) -> Tensor:
        """All sines, then all cosines, of the positions of so many frames: [2 frames - 1, d], from the furthest past."""
        furthest = frames - 1
        distance = torch.arange(2 * furthest + 1, device=self.rates.device) * -1 + furthest
        angles = distance.to(self.rates.dtype).unsqueeze(1) * self.rates
        return torch.cat([torch.sin(angles), torch.cos(angles)], 1)


def _limits(frames: int, att_context_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What LimitedAttention takes for a window of so many frames (NeMo `_create_masks`, chunked_limited_with_rc). A window's
    chunks are counted from its first frame."""
    left, chunk, right = att_context_size
    size = torch.where(chunk < 1, frames, chunk)
    start = torch.div(torch.arange(frames), size, rounding_mode="trunc") * size
    earliest, latest = start - left.clamp(min=0), start + size - 1 + right.clamp(min=0)
    return earliest[None, None, :, None], latest[None, None, :, None], torch.tensor(MASKED_SCORE)
