"""The cache-aware encoder for runtimes without dynamic shapes: one stream, and a module for each window.

Same function and caches as encoder_kv.py's. Values that depend on shapes only are constants here, integers have 32 bits, and
products with a weight are `nn.Linear` modules, which such runtimes have a kernel for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.export import encoder_kv, layers
from nemoport.export.encoder import CacheAwareEncoder, within_chunk
from nemoport.export.encoder_fixed import FixedEncoder
from nemoport.prompt import PromptSpec
from nemoport.spec import MASKED_SCORE, StreamingSpec


class Chunk(NamedTuple):
    """Sizes and tensors that all layers share. frames: T; column: the first one of the table of positions that a row needs; mask:
    f32 [1, 1 or T, past + T], added to the scores, where past is the cache's C frames or, in a first window, 0."""

    frames: int
    column: int
    mask: Tensor


class SelfAttention(layers.CachedAttentionWeights):
    """Attention over cached and new keys and values of one stream."""

    def forward(self, x: Tensor, keys: Tensor | None, values: Tensor | None, chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """x: [T, d]; keys, values: [C, d], None in a first window -> ([T, d], new keys and new values [T, d])."""
        _, n_heads, d_k, _ = self.positions.shape
        frames = chunk.frames
        query, new_keys, new_values = self.linear_q(x).view(frames, n_heads, d_k), self.linear_k(x), self.linear_v(x)
        every_key, every_value = (  # [h, past + T, d_k]
            (new if cached is None else torch.cat([cached, new])).view(-1, n_heads, d_k).transpose(0, 1)
            for cached, new in ((keys, new_keys), (values, new_values))
        )
        content = torch.matmul((query + self.pos_bias_u).transpose(0, 1), every_key.transpose(1, 2))
        # All windows share one table, so that the file holds it once, and slice the columns that they need from the product.
        table = torch.matmul((query + self.pos_bias_v).transpose(0, 1), self.positions[0])  # [h, T, P]
        # Row i needs columns T - 1 - i onward: with one more column, that is a plain offset into the flat rows.
        n_keys = every_key.shape[1]
        width = n_keys + frames - 1
        flat = F.pad(table[:, :, chunk.column : chunk.column + width], (0, 1)).reshape(n_heads, frames * (width + 1))
        position = flat[:, frames - 1 : frames - 1 + frames * width].reshape(n_heads, frames, width)[:, :, :n_keys]
        weights = torch.softmax(content + position + chunk.mask, -1)
        context = torch.matmul(weights, every_value).transpose(0, 1).reshape(frames, n_heads * d_k)
        return self.linear_out(context), new_keys, new_values


class Convolution(encoder_kv.Convolution):
    """Convolution of one stream, with the cache of encoder_kv.py's."""

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x: [T, d]; cache: [k - 1, d] -> ([T, d], what this chunk adds to the cache [T, d])."""
        channels = self.depthwise_weight.shape[0]
        value, gate = self.pointwise_conv1(x).split(channels, -1)
        gated = value * torch.sigmoid(gate)
        x = torch.cat([cache, gated]).t().reshape(1, channels, 1, -1)
        x = F.conv2d(x, self.depthwise_weight, self.depthwise_bias, groups=channels)
        return self.pointwise_conv2(F.silu(self.norm(x.reshape(channels, -1).t()))), gated


class LitertEncoder(CacheAwareEncoder):
    """The layers and weights that the modules of all windows share; see `Window`."""

    ATTENTION, CONVOLUTION = SelfAttention, Convolution

    def __init__(self, tensors: dict[str, Tensor], spec: StreamingSpec, prompt: PromptSpec | None = None):
        super().__init__(tensors, spec, prompt)
        use_linear(self)

    def subsample(self, mel: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """As layers.Subsampling. mel: f32 [1, n_mels, T]; length: i32 [1] -> ([T', d], i32 [1])."""
        stem = self.pre_encode
        x = mel.transpose(1, 2).unsqueeze(1)
        stages = [[stem.first], *zip(stem.depthwise, stem.pointwise, strict=True)]
        for stage in stages:
            valid = torch.arange(x.shape[2], dtype=torch.int32) < length
            x = layers.causal_pad(x * valid.to(x.dtype).view(1, 1, -1, 1))
            for convolution in stage:
                x = convolution(x)
            x = F.relu(x)
            length = layers.halve(length)
        frames = x.shape[2]
        return stem.out(x.transpose(1, 2).reshape(frames, -1)), length


class Window(nn.Module):
    """One window of one lookahead: the first of a stream, or a later one.

    A first window has 1 + 8r mel frames and no caches. A later one has 9 + 8(r + 1) mel frames, and the two encoder frames of its
    mel cache are dropped. Both return r + 1 encoder frames. A shorter rest of a stream is zero-padded to the window, and `length`
    counts its valid frames.
    """

    def __init__(self, encoder: LitertEncoder, lookahead: int, first: bool):
        super().__init__()
        self.encoder, self.first, self.frames = encoder, first, lookahead + 1

    def forward(
        self,
        audio_signal: Tensor,
        length: Tensor,
        cache_key: Tensor | None = None,
        cache_value: Tensor | None = None,
        cache_conv: Tensor | None = None,
        cache_len: Tensor | None = None,
        prompt_index: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Runs one window.

        audio_signal f32 [1, n_mels, window]; length i32 [1], valid mel frames, mel cache included; of a later window cache_key,
        cache_value f32 [layers, C, d], cache_conv f32 [layers, k - 1, d] and cache_len i32 [1], how many of the C frames are
        filled, from the end; of a model with a prompt prompt_index i32 [1] -> outputs f32 [1, T, d], encoded_lengths i32 [1], and
        what the window adds behind the caches: key_new, value_new, conv_new f32 [layers, T, d].
        """
        encoder, spec, frames = self.encoder, self.encoder.spec, self.frames
        drop = 0 if self.first else spec.drop_enc_frames
        past = 0 if self.first else spec.left_context_enc_frames
        x, length = encoder.subsample(audio_signal, length)
        x, length = x[drop:], torch.clamp(length - drop, min=0)
        key = torch.arange(past + frames, dtype=torch.int32)
        filled = key < (past + length)
        if cache_len is not None:
            filled = filled & (key >= (past - cache_len))
        mask = torch.where(filled, 0.0, MASKED_SCORE).view(1, 1, -1)
        if spec.attention_lookahead is not None:
            full = spec.left_context_enc_frames + frames
            mask = mask + within_chunk(spec, torch.zeros(1, full), frames)[:, full - past - frames :]
        column = spec.left_context_enc_frames - past + spec.max_chunk_enc_frames - frames
        chunk = Chunk(frames, column, mask)
        added = []
        for i, layer in enumerate(encoder.layers):
            keys, values = (None if cache is None else cache[i] for cache in (cache_key, cache_value))
            conv = torch.zeros(spec.conv_cache_frames, spec.d_model) if cache_conv is None else cache_conv[i]
            x, *new = layer(x, (keys, values, chunk), (conv,))
            added.append(new)
        x = x.unsqueeze(0)
        if encoder.prompt_kernel is not None:
            x = encoder.prompt_kernel(x, prompt_index, 1)
        key_new, value_new, conv_new = (torch.stack(new) for new in zip(*added, strict=True))
        return {
            "outputs": x,
            "encoded_lengths": length,
            "key_new": key_new,
            "value_new": value_new,
            "conv_new": conv_new,
        }


class Recording(nn.Module):
    """One window of an offline model: names the outputs of encoder_fixed.FixedEncoder."""

    def __init__(self, encoder: FixedEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, audio_signal: Tensor, length: Tensor) -> dict[str, Tensor]:
        """As FixedEncoder.forward."""
        frames, length = self.encoder(audio_signal, length)
        return {"outputs": frames, "encoded_lengths": length}


def use_linear(module: nn.Module) -> None:
    """Replaces every MatMul below `module` by an nn.Linear with the same weights."""
    for name, child in module.named_children():
        if isinstance(child, layers.MatMul):
            linear = nn.Linear(*child.weight.shape, bias=child.bias is not None)
            linear.weight = nn.Parameter(child.weight.detach().t().contiguous())
            if child.bias is not None:
                linear.bias = child.bias
            setattr(module, name, linear)
        else:
            use_linear(child)
