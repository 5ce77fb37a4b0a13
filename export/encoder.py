"""The cache-aware FastConformer encoder as traced for the cache layout `nemo`, and its base for every layout.

Same function as NeMo's `ConformerEncoder.forward_for_export` with its caches. The projections of the relative positions, which
depend on weights only, are constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.operators import shape_as_tensor

from nemoport.export.layers import (
    ConformerLayer,
    ConvolutionWeights,
    SelfAttentionWeights,
    Subsampling,
    Weights,
    heads,
    sinusoids,
)
from nemoport.export.prompt import PromptKernel
from nemoport.prompt import PromptSpec
from nemoport.spec import MASKED_SCORE, StreamingSpec


class SelfAttention(SelfAttentionWeights):
    """Attention over the cached layer inputs and the new frames."""

    def __init__(self, weights: Weights, name: str, n_heads: int, positions: Tensor):
        super().__init__(weights, name, n_heads)
        projected = positions @ weights.take(f"{name}.linear_pos.weight").t()  # [P, d_model]
        self.positions = nn.Parameter(heads(projected, n_heads).contiguous())  # [heads, d_k, P]

    def forward(self, x: Tensor, cache: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, T, d]; cache: [B, C, d]; mask: [B, 1, 1 or T, C + T], added to the scores -> ([B, T, d], next cache)."""
        batch, new, left = x.size(0), x.size(1), cache.size(1)
        memory = torch.cat([cache, x], 1)
        query = self.split(self.linear_q(x))
        key = self.split(self.linear_k(memory)).permute(0, 2, 3, 1)  # [B, h, d_k, C + T]
        value = self.split(self.linear_v(memory)).transpose(1, 2)
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


class Convolution(ConvolutionWeights):
    """Convolution with a cache of the last k - 1 frames before the chunk, k being the kernel's size."""

    def forward(self, x: Tensor, cache: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, T, d]; cache: [B, d, k - 1]; valid: [B, T, 1] of 0 and 1 -> ([B, T, d], next cache)."""
        value, gate = self.pointwise_conv1(x).chunk(2, -1)
        x = (value * torch.sigmoid(gate) * valid).transpose(1, 2)
        x = torch.cat([cache, x], 2)
        cache_next = x[:, :, -cache.size(2) :]
        x = F.conv1d(x, self.depthwise_weight, self.depthwise_bias, groups=self.depthwise_weight.size(0))
        return self.pointwise_conv2(F.silu(self.norm(x.transpose(1, 2)))), cache_next


class CacheAwareEncoder(nn.Module):
    """Parts of a cache-aware encoder, from a checkpoint's tensors by name. A subclass chooses the modules of its layers.

    ATTENTION, CONVOLUTION: classes of the two modules of a ConformerLayer that depend on the cache layout; FOLD_HALF: as its
    fold_half. unused: names of the encoder's and the prompt's tensors that are not used. Raises CheckpointError for tensors that
    are absent, or a prompt's that do not fit.
    """

    ATTENTION: type[nn.Module]
    CONVOLUTION: type[nn.Module]
    FOLD_HALF = True
    later_windows: Tensor  # i64 [lookaheads], from the function of the same name

    def __init__(self, tensors: dict[str, Tensor], spec: StreamingSpec, prompt: PromptSpec | None = None):
        super().__init__()
        weights = Weights(tensors, "encoder.")
        self.spec = spec
        longest = spec.max_chunk_enc_frames
        positions = sinusoids(range(spec.left_context_enc_frames + longest - 1, -longest, -1), spec.d_model)
        self.pre_encode = Subsampling(weights, "pre_encode")
        self.layers = nn.ModuleList(
            ConformerLayer(
                weights,
                name := f"layers.{i}",
                self.ATTENTION(weights, f"{name}.self_attn", spec.n_heads, positions),
                self.CONVOLUTION(weights, f"{name}.conv"),
                self.FOLD_HALF,
            )
            for i in range(spec.n_layers)
        )
        self.register_buffer("later_windows", later_windows(spec), persistent=False)
        self.prompt_kernel = PromptKernel(tensors, prompt, spec.d_model) if prompt else None
        self.unused = weights.unused + (self.prompt_kernel.unused if self.prompt_kernel is not None else [])
        self.eval()


class StreamingEncoder(CacheAwareEncoder):
    """NeMo's cached encoder for every lookahead of the checkpoint.

    A first chunk has T = 1 + 8r mel frames and drops nothing; a later one has 9 + 8(r + 1) and drops the two encoder frames of
    its mel cache. The graph distinguishes them without another input: a chunk is a later one if a cache is not empty, or if T is
    one of the later lengths, which no first length equals (kinds.py refuses lookaheads where one would). So a consumer that
    always feeds nine zero frames first gets what NeMo's `pad_and_drop_preencoded` gives. A stream shorter than its first chunk
    is padded to it, and `length` counts its valid frames.
    """

    ATTENTION, CONVOLUTION = SelfAttention, Convolution
    FOLD_HALF = False  # the INT8 variants of this cache layout were measured so; folded, int8-smoothquant lost 1 dB in a test

    def forward(self, audio_signal, length, cache_last_channel, cache_last_time, cache_last_channel_len, prompt_index=None):
        """Runs one chunk of a batch of streams. Shapes are NeMo's, batch first:

        audio_signal f32 [B, n_mels, T]; length i64 [B], valid mel frames, cache included; cache_last_channel f32
        [B, layers, C, d]; cache_last_time f32 [B, layers, d, k - 1]; cache_last_channel_len i64 [B]; of a model with a
        prompt also prompt_index i64 [B] -> outputs f32 [B, d, T'], encoded_lengths i64 [B] and the three caches, next.
        """
        left = self.spec.left_context_enc_frames
        x, length = self.pre_encode(audio_signal.transpose(1, 2), length)
        drop = dropped_frames(self.spec, audio_signal, cache_last_channel_len, self.later_windows)
        x = x[:, drop:]
        length = torch.clamp(length - drop, min=0)

        key = torch.arange(left + x.size(1), device=x.device).unsqueeze(0)
        filled = (key >= (left - cache_last_channel_len).unsqueeze(1)) & (key < (left + length).unsqueeze(1))
        mask = within_chunk(self.spec, torch.where(filled, 0.0, MASKED_SCORE)[:, None, None, :], x.size(1))
        valid = filled[:, left:].to(x.dtype).unsqueeze(2)

        channels, times = [], []
        for i, layer in enumerate(self.layers):
            x, channel, time = layer(x, (cache_last_channel[:, i], mask), (cache_last_time[:, i], valid))
            channels.append(channel)
            times.append(time)
        if self.prompt_kernel is not None:
            x = self.prompt_kernel(x, prompt_index, 1)
        # The cache length grows by the chunk's frames, not by the valid ones (NeMo; a short chunk ends its stream).
        channel_len = torch.clamp(cache_last_channel_len + x.size(1), max=left)
        return x.transpose(1, 2), length, torch.stack(channels, 1), torch.stack(times, 1), channel_len


def within_chunk(spec: StreamingSpec, mask: Tensor, frames: int) -> Tensor:
    """Masks a chunk that is several of a lesser lookahead's (`attention_lookahead`): a frame attends to those of its own group
    and, of those before it, to as many as fit into the left context (NeMo ConformerEncoder._create_masks).

    mask: f32 [B, 1, 1, C + T], added to the scores; frames: T -> [B, 1, T, C + T], or `mask` itself for other checkpoints.
    """
    if spec.attention_lookahead is None:
        return mask
    left, size = spec.left_context_enc_frames, spec.attention_lookahead + 1
    group = torch.div(torch.arange(left + frames, device=mask.device), size, rounding_mode="trunc")  # size divides left
    behind = group[left:].unsqueeze(1) - group.unsqueeze(0)
    return mask + torch.where((behind >= 0) & (behind <= left // size), 0.0, MASKED_SCORE)


def later_windows(spec: StreamingSpec) -> Tensor:
    """Mel frames of every window but the first, for each lookahead: i64 [lookaheads]."""
    return torch.tensor([spec.window_mel_frames(r, first=False) for r in spec.lookaheads])


def dropped_frames(spec: StreamingSpec, audio_signal: Tensor, cache_len: Tensor, later_windows: Tensor) -> Tensor:
    """Number of encoder frames that come from the mel cache of this window, i64 []: 0 in a first window."""
    later = (shape_as_tensor(audio_signal)[2] == later_windows).any() | (cache_len > 0).any()
    return later.to(torch.int64) * spec.drop_enc_frames
