"""The full-context encoder for runtimes without dynamic shapes: one recording, zero-padded to a window of fixed length.

Same function as encoder_offline.py's: what is behind `length` has no effect. Values that depend on shapes only are constants, and
integers have 32 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.export import encoder_offline
from nemoport.export.layers import CachedAttentionWeights, ConformerLayer, Weights, sinusoids
from nemoport.spec import MASKED_SCORE, OfflineSpec


class Subsampling(encoder_offline.Subsampling):
    """dw_striding by 8, centred, of one whole window at once."""

    def forward(self, mel: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """mel: f32 [1, T, n_mels]; length: i32 [1] -> ([1, T', d], i32 [1])."""
        (first, *pairs), x = list(zip(self.convolutions[0::2], self.convolutions[1::2], strict=True)), mel.unsqueeze(1)
        channels = first[0].shape[0]
        for depthwise, pointwise in ((first, None), (pairs[0], pairs[1]), (pairs[2], pairs[3])):
            x = x * _filled(x.shape[2], length).to(x.dtype).view(1, 1, -1, 1)
            x = F.conv2d(x, *depthwise, stride=2, padding=1, groups=channels if pointwise else 1)
            x = F.relu(F.conv2d(x, *pointwise) if pointwise else x)
            length = torch.div(length + 1, 2, rounding_mode="trunc")
        return self.out(x.transpose(1, 2).reshape(1, x.shape[2], self.width)), length


class SelfAttention(CachedAttentionWeights):
    """Attention over all frames of a window. The table of positions is that of the longest window: [1, h, d_k, P]."""

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor]:
        """x: [1, T, d]; mask: [1, 1, 1 or T, T], added to the scores -> [1, T, d]."""
        _, n_heads, d_k, n_positions = self.positions.shape
        frames = x.shape[1]
        query, key, value = (
            linear(x).reshape(1, frames, n_heads, d_k) for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        content = torch.matmul((query + self.pos_bias_u).transpose(1, 2), key.permute(0, 2, 3, 1))
        # All windows share one table, so that a file holds it once, and slice the columns that they need from the product.
        table = torch.matmul((query + self.pos_bias_v).transpose(1, 2), self.positions)
        width, first = 2 * frames - 1, (n_positions + 1) // 2 - frames
        table = table[:, :, :, first : first + width] if first else table  # coremltools refuses a slice of all
        # Row i needs columns T - 1 - i onward: with one more column, that is a plain offset into the flat rows.
        flat = F.pad(table, (0, 1)).reshape(1, n_heads, frames * (width + 1))
        position = flat[:, :, frames - 1 : frames - 1 + frames * width].reshape(1, n_heads, frames, width)[:, :, :, :frames]
        context = torch.matmul(torch.softmax(content + position + mask, -1), value.transpose(1, 2))
        return (self.linear_out(context.transpose(1, 2).reshape(1, frames, n_heads * d_k)),)


class FixedEncoder(nn.Module):
    """The whole encoder, from a checkpoint's tensors by name; `unused` lists those of the encoder that it does not use. Its input
    has the length of any window, at most the longest. Raises CheckpointError for tensors that are absent."""

    def __init__(self, tensors: dict[str, Tensor], spec: OfflineSpec, longest_enc_frames: int):
        super().__init__()
        weights = Weights(tensors, "encoder.")
        positions = sinusoids(range(longest_enc_frames - 1, -longest_enc_frames, -1), spec.d_model)
        self.pre_encode = Subsampling(weights, "pre_encode")
        self.layers = nn.ModuleList(
            ConformerLayer(
                weights,
                name := f"layers.{i}",
                SelfAttention(weights, f"{name}.self_attn", spec.n_heads, positions),
                encoder_offline.Convolution(weights, f"{name}.conv"),
            )
            for i in range(spec.n_layers)
        )
        self.window = spec.attention_enc_frames
        self.unused = weights.unused
        self.eval()

    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """audio_signal f32 [1, n_mels, T], zeros behind the first `length` i32 [1] frames -> outputs f32 [1, T', d],
        encoded_lengths i32 [1]."""
        x, length = self.pre_encode(audio_signal.transpose(1, 2), length)
        filled = _filled(x.shape[1], length)
        mask = torch.where(filled, 0.0, MASKED_SCORE).to(x.dtype).view(1, 1, 1, -1)
        if self.window is not None:
            place = torch.arange(x.shape[1], dtype=torch.int32)
            near = (place.view(-1, 1) - place).abs() <= self.window
            mask = mask + torch.where(near, 0.0, MASKED_SCORE).to(x.dtype)
        valid = filled.to(x.dtype).view(1, -1, 1)
        for layer in self.layers:
            (x,) = layer(x, (mask,), (valid,))
        return x, length


def _filled(frames: int, length: Tensor) -> Tensor:
    """Whether each of so many frames is before `length`."""
    return torch.arange(frames, dtype=torch.int32) < length
