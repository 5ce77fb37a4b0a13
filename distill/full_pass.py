"""The cache-aware encoder over whole recordings, as training needs it.

Under NeMo's chunked mask (`ConformerEncoder._create_masks`) a frame attends to the frames of its own chunk and of as many
chunks before it as fit into the left context: exactly what a stream has in its warm caches. So one pass over a recording
gives the frames of all its chunks, and their gradients flow through what a stream would have cached.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nemoport.export.encoder import CacheAwareEncoder, Convolution
from nemoport.export.layers import SelfAttentionWeights, Weights, heads, sinusoids
from nemoport.spec import MASKED_SCORE, StreamingSpec


class SelfAttention(SelfAttentionWeights):
    """Attention of every frame of a recording to the frames that the mask leaves it."""

    linear_pos: Tensor  # [d, d]

    def __init__(self, weights: Weights, name: str, n_heads: int, positions: Tensor):
        super().__init__(weights, name, n_heads)
        self.register_buffer("linear_pos", weights.take(f"{name}.linear_pos.weight"))

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor]:
        """x: [B, T, d]; mask: [B, 1, T, T], added to the scores; positions: [2 T - 1, d], from T - 1 down -> [B, T, d]."""
        batch, frames = x.size(0), x.size(1)
        query = self.split(self.linear_q(x))
        key = self.split(self.linear_k(x)).permute(0, 2, 3, 1)
        value = self.split(self.linear_v(x)).transpose(1, 2)
        content = torch.matmul((query + self.pos_bias_u).transpose(1, 2), key)
        table = heads(positions @ self.linear_pos.t(), self.n_heads)  # [h, d_k, 2 T - 1]
        position = torch.matmul((query + self.pos_bias_v).transpose(1, 2), table)
        # Row i needs columns T - 1 - i onward: with one more column, that is a plain offset into the flat rows.
        width = 2 * frames - 1
        flat = F.pad(position, (0, 1)).flatten(2)[:, :, frames - 1 : frames - 1 + frames * width]
        position = flat.view(batch, self.n_heads, frames, width)[..., :frames]
        scores = (content + position) * (1.0 / math.sqrt(table.size(1))) + mask
        context = torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2).flatten(2)
        return (self.linear_out(context),)


class FullPassEncoder(CacheAwareEncoder):
    """A checkpoint's cache-aware encoder. Its parameters have the names of the graphs' weights in the cache layout nemo."""

    ATTENTION, CONVOLUTION = SelfAttention, Convolution
    FOLD_HALF = False

    def forward(self, mel: Tensor, lengths: Tensor, lookahead: int, prompt_index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mel: f32 [B, n_mels, T]; lengths: i64 [B], valid mel frames; lookahead: one of the model's; prompt_index: i64 [B], of a
        model with a prompt -> frames f32 [B, T', d_model] and their valid number, i64 [B]."""
        x, lengths = self.pre_encode(mel.transpose(1, 2), lengths)
        batch, frames = x.size(0), x.size(1)
        mask, valid = chunk_mask(self.spec, lengths, frames, lookahead)
        positions = sinusoids(range(frames - 1, -frames, -1), self.spec.d_model).to(x)
        before = x.new_zeros(batch, self.spec.d_model, self.spec.conv_cache_frames)
        for layer in self.layers:
            x = layer(x, (mask, positions), (before, valid))[0]
        if self.prompt_kernel is not None:
            x = self.prompt_kernel(x, prompt_index, 1)
        return x, lengths


def chunk_mask(spec: StreamingSpec, lengths: Tensor, frames: int, lookahead: int) -> tuple[Tensor, Tensor]:
    """The mask of attention, f32 [B, 1, T, T], added to the scores, and which frames are valid, f32 [B, T, 1] of 0 and 1."""
    size = (lookahead if spec.attention_lookahead is None else spec.attention_lookahead) + 1
    at = torch.arange(frames, device=lengths.device)
    behind = (at // size).unsqueeze(1) - (at // size).unsqueeze(0)
    seen = (behind >= 0) & (behind <= spec.left_context_enc_frames // size)
    filled = at < lengths.unsqueeze(1)
    mask = torch.where(seen & filled.unsqueeze(1), 0.0, MASKED_SCORE).unsqueeze(1)
    return mask, filled.unsqueeze(2).to(torch.float32)
