"""The cache-aware FastConformer encoder as traced for the cache layout `kv`: the same function as encoder.py's, with less work.

NeMo's cache holds the inputs of the layers, so that every chunk projects keys and values of all cached frames again. Here the
caches hold the projections, one tensor for each layer, so that the graph need not slice them. Frames are the first dimension
of every tensor within: what a chunk adds to a cache is then one block behind it, the runtime never moves the rest, and the
heads' transpositions are strides of the products.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.export.encoder import CacheAwareEncoder, dropped_frames, within_chunk
from nemoport.export.layers import CachedAttentionWeights, ConvolutionWeights, Weights
from nemoport.spec import MASKED_SCORE


class ChunkGeometry(NamedTuple):
    """Sizes and tensors that all layers share.

    cached: C; frames, batch: T and B, which are tensors while the module is traced; relative: i64 [B, h, T, C + T], the columns
    of `positions` that a row needs; mask: f32 [B, 1, 1 or T, C + T], added to the scores.
    """

    cached: int
    frames: int
    batch: int
    relative: Tensor
    mask: Tensor


class SelfAttention(CachedAttentionWeights):
    """Attention over cached and new keys and values."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, chunk: ChunkGeometry) -> tuple[Tensor, Tensor, Tensor]:
        """x: [T, B, d]; keys, values: [C, B, h, d_k] -> ([T, B, d], new keys and new values [T, B, h, d_k])."""
        _, n_heads, d_k, _ = self.positions.shape
        cached, split = chunk.cached, (chunk.frames, chunk.batch, n_heads, d_k)
        query, new_keys, new_values = (linear(x).view(split) for linear in (self.linear_q, self.linear_k, self.linear_v))
        content_query = (query + self.pos_bias_u).permute(1, 2, 0, 3)  # [B, h, T, d_k]
        position_query = (query + self.pos_bias_v).permute(1, 2, 0, 3)
        past = torch.matmul(content_query, keys.permute(1, 2, 3, 0))
        present = torch.matmul(content_query, new_keys.permute(1, 2, 3, 0))
        position = torch.gather(torch.matmul(position_query, self.positions), 3, chunk.relative)
        weights = torch.softmax(torch.cat([past, present], 3) + position + chunk.mask, -1)
        context = torch.matmul(weights[..., :cached], values.permute(1, 2, 0, 3))
        context = context + torch.matmul(weights[..., cached:], new_values.permute(1, 2, 0, 3))
        context = context.permute(2, 0, 1, 3).reshape(chunk.frames, chunk.batch, n_heads * d_k)
        return self.linear_out(context), new_keys, new_values


class Convolution(ConvolutionWeights):
    """Convolution with a cache of the last k - 1 frames before the chunk, k being the kernel's size.

    Frames behind a stream's end need no mask: in a causal convolution they have no effect on the frames before.
    """

    def __init__(self, weights: Weights, name: str):
        super().__init__(weights, name)
        # In two dimensions, one of them 1: onnxruntime has a depthwise kernel for that (4 times faster, 8 streams: 5).
        self.depthwise_weight = nn.Parameter(self.depthwise_weight.detach().unsqueeze(2))

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x: [T, B, d]; cache: [k - 1, B, d] -> ([T, B, d], what this chunk adds to the cache [T, B, d])."""
        value, gate = self.pointwise_conv1(x).split(self.depthwise_weight.shape[0], -1)
        gated = value * torch.sigmoid(gate)
        x = torch.cat([cache, gated], 0).permute(1, 2, 0).unsqueeze(2)
        x = F.conv2d(x, self.depthwise_weight, self.depthwise_bias, groups=self.depthwise_weight.shape[0])
        return self.pointwise_conv2(F.silu(self.norm(x.squeeze(2).permute(2, 0, 1)))), gated


class KvStreamingEncoder(CacheAwareEncoder):
    """The encoder of the cache layout `kv`, for every lookahead of the checkpoint. First chunks are distinguished from later ones
    as in `encoder.StreamingEncoder`."""

    ATTENTION, CONVOLUTION = SelfAttention, Convolution

    def forward(self, audio_signal, length, *caches):
        """Runs one chunk of a batch of streams.

        audio_signal f32 [B, n_mels, T]; length i64 [B], valid mel frames, mel cache included; caches: for each layer keys and
        values f32 [C, B, h, d_k] and inputs of the convolution f32 [k - 1, B, d]; then i64 [B], how many of the C frames are
        filled, from the end; then, of a model with a prompt, prompt_index i64 [B] -> outputs f32 [B, d, T'], encoded_lengths
        i64 [B], and for each layer what the chunk adds behind those caches, [T', ...] each.
        """
        *caches, prompt_index = caches if self.prompt_kernel is not None else (*caches, None)
        *caches, cache_len = caches
        cached = self.spec.left_context_enc_frames
        x, length = self.pre_encode(audio_signal.transpose(1, 2), length)
        drop = dropped_frames(self.spec, audio_signal, cache_len, self.later_windows)
        x = x[:, drop:].transpose(0, 1)  # [T', B, d]
        length = torch.clamp(length - drop, min=0)

        frames, batch = x.size(0), x.size(1)
        key = torch.arange(cached + frames, device=x.device)
        filled = (key >= (cached - cache_len).unsqueeze(1)) & (key < (cached + length).unsqueeze(1))
        mask = within_chunk(self.spec, torch.where(filled, 0.0, MASKED_SCORE)[:, None, None, :], frames)
        # Row i attends to the key j at distance C + i - j. `positions` runs from C + longest - 1 down to 1 - longest.
        row = torch.arange(frames, device=x.device).unsqueeze(1)
        relative = (key.unsqueeze(0) - row + (self.spec.max_chunk_enc_frames - 1)).expand(
            batch, self.spec.n_heads, frames, cached + frames
        )
        chunk = ChunkGeometry(cached, frames, batch, relative, mask)
        added = []
        for layer, keys, values, conv in zip(self.layers, caches[0::3], caches[1::3], caches[2::3], strict=True):
            x, *new = layer(x, (keys, values, chunk), (conv,))
            added += new
        if self.prompt_kernel is not None:
            x = self.prompt_kernel(x, prompt_index, 0)
        return x.permute(1, 2, 0), length, *added
