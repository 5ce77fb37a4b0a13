"""Torch modules of the graphs that nemoport/apple/graphs.py describes: of fixed shapes, for one stream, so that torch.export
takes them whole.

They are made of the same parts as the ONNX encoders and equal NeMo's streaming. The subsampling caches the one frame that each
of its convolutions reads again (kernel 3, stride 2, causal); NeMo's streaming feeds nine mel frames again and drops the two
encoder frames that they give. Both are the same for a lookahead of 1 and more, where the nine frames hold the receptive field of
every kept frame. At lookahead 0 NeMo's second window has one real frame behind eight of zeros, and the convolutions' outputs for
those zeros differ from the zeros of their padding: `SubsamplingFirst` then returns the caches of NeMo's second window.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.apple.graphs import JOINT, PRE, PRE_FIRST, PREDICT, conformer_parts, layers_of
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.decoder import DecoderJoint
from nemoport.export.encoder import CacheAwareEncoder
from nemoport.export.layers import CAUSAL_PADDING, CachedAttentionWeights, ConvolutionWeights, MatMul, Subsampling
from nemoport.export.lstm_step import lstm_step
from nemoport.export.prompt import PromptKernel
from nemoport.export.shared import graph_weights
from nemoport.export.weight_errors import explain_weight_errors, refuse_unused


class SelfAttention(CachedAttentionWeights):
    """Attention over cached and new keys and values of one stream, whose table of positions is that of a chunk of T frames:
    [1, h, d_k, C + 2T - 1]."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: [1, T, d]; keys, values: [h, C, d_k]; mask: [1, 1, T, C + T], added to the scores -> ([1, T, d], next keys, next
        values)."""
        new, left, n_heads, d_k = x.shape[1], keys.shape[1], self.n_heads, keys.shape[2]
        query = self.linear_q(x).reshape(1, new, n_heads, d_k)
        key, value = (linear(x).reshape(1, new, n_heads, d_k).transpose(1, 2) for linear in (self.linear_k, self.linear_v))
        keys, values = torch.cat([keys.unsqueeze(0), key], 2), torch.cat([values.unsqueeze(0), value], 2)
        content = torch.matmul((query + self.pos_bias_u).transpose(1, 2), keys.transpose(2, 3))
        position = torch.matmul((query + self.pos_bias_v).transpose(1, 2), self.positions)
        # Row i needs columns T - 1 - i onward: with one more column, that is a plain offset into the flat rows.
        width = left + 2 * new - 1
        flat = _joined(position, 3, 0, 1).reshape(1, n_heads, new * (width + 1))[:, :, new - 1 : new - 1 + new * width]
        position = flat.reshape(1, n_heads, new, width)[:, :, :, : left + new]
        context = torch.matmul(torch.softmax(content + position + mask, -1), values)
        context = context.transpose(1, 2).reshape(1, new, n_heads * d_k)
        return self.linear_out(context), keys[0, :, new:], values[0, :, new:]


class Convolution(ConvolutionWeights):
    """Convolution of one stream with a cache of the last k - 1 frames before the chunk, k being the kernel's size."""

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x: [1, T, d]; cache: [d, k - 1] -> ([1, T, d], next cache)."""
        value, gate = self.pointwise_conv1(x).split(self.depthwise_weight.shape[0], -1)
        window = torch.cat([cache.unsqueeze(0), (value * torch.sigmoid(gate)).transpose(1, 2)], 2)
        y = F.conv1d(window, self.depthwise_weight, self.depthwise_bias, groups=self.depthwise_weight.shape[0])
        return self.pointwise_conv2(F.silu(self.norm(y.transpose(1, 2)))), window[0, :, x.shape[1] :]


class AppleEncoder(CacheAwareEncoder):
    """The encoder's layers, for chunks of one lookahead, from which the modules of the graphs are made."""

    ATTENTION, CONVOLUTION = SelfAttention, Convolution


class SubsamplingLater(nn.Module):
    """Subsampling of a later chunk.

    mel [1, 8(r + 1), n_mels]; length i32 [1]; three caches [1, channels, 1, bands] -> embeds [1, r + 1, d], the next caches.
    """

    def __init__(self, parts: Subsampling):
        super().__init__()
        self.parts = parts

    def forward(self, mel, length, pre_cache_0, pre_cache_1, pre_cache_2):
        x, kept = mel.unsqueeze(1), []
        caches = (pre_cache_0, pre_cache_1, pre_cache_2)
        for stage, cache in zip(_stages(self.parts), caches, strict=True):
            x = _valid(x, length)
            kept.append(x[:, :, -1:])
            x = stage(torch.cat([cache, x], 2))
            length = (length + 1) // 2
        return (_flat(self.parts, x), *kept)


class SubsamplingFirst(nn.Module):
    """Subsampling of a first chunk. zeros_before: number of zero frames before the chunk in NeMo's second window.

    mel [1, 1 + 8r, n_mels]; length i32 [1] -> embeds [1, r + 1, d], three caches as of `SubsamplingLater`.
    """

    def __init__(self, parts: Subsampling, zeros_before: int):
        super().__init__()
        self.parts, self.zeros_before = parts, zeros_before

    def forward(self, mel, length):
        x, kept = mel.unsqueeze(1), []
        window = _joined(x, 2, self.zeros_before, 0) if self.zeros_before else None
        for stage in _stages(self.parts):
            x = _valid(x, length)
            kept.append((x if window is None else window)[:, :, -1:])
            x = stage(_joined(x, 2, CAUSAL_PADDING[0], 0))
            window = None if window is None else stage(_joined(window, 2, CAUSAL_PADDING[0], 0))
            length = (length + 1) // 2
        return (_flat(self.parts, x), *kept)


class ConformerLayers(nn.Module):
    """Some of the encoder's layers."""

    def __init__(self, layers: nn.ModuleList):
        super().__init__()
        self.layers = layers

    def run(self, x, neg_mask, k_cache, v_cache, conv_cache):
        """x [1, T, d]; neg_mask [1, 1, T, C + T]; k_cache, v_cache [layers, h, C, d_k]; conv_cache [layers, d, k - 1]
        -> frames [1, T, d] and the three caches, next."""
        kept = []
        for i, layer in enumerate(self.layers):
            x, *caches = layer(x, (k_cache[i], v_cache[i], neg_mask), (conv_cache[i],))
            kept.append(caches)
        return x, *(torch.stack(caches) for caches in zip(*kept, strict=True))


class Conformer(ConformerLayers):
    """Layers of a part that another part follows: inputs and outputs of `ConformerLayers.run`."""

    def forward(self, x, neg_mask, k_cache, v_cache, conv_cache):
        return self.run(x, neg_mask, k_cache, v_cache, conv_cache)


class LastConformer(ConformerLayers):
    """Layers of the last part, and the joint's projection: as `Conformer`, but with encoded [1, T, d] and enc_proj
    [1, T, joint_hidden] in place of the frames."""

    def __init__(self, layers: nn.ModuleList, projection: MatMul):
        super().__init__(layers)
        self.projection = projection

    def forward(self, x, neg_mask, k_cache, v_cache, conv_cache):
        x, *caches = self.run(x, neg_mask, k_cache, v_cache, conv_cache)
        return x, self.projection(x), *caches


class PromptedConformer(ConformerLayers):
    """As `LastConformer`, of a model with a language prompt: with one_hot [1, slots], 1 at the language's slot."""

    def __init__(self, layers: nn.ModuleList, projection: MatMul, prompt: PromptKernel):
        super().__init__(layers)
        self.projection, self.prompt = projection, prompt

    def forward(self, x, neg_mask, k_cache, v_cache, conv_cache, one_hot):
        x, *caches = self.run(x, neg_mask, k_cache, v_cache, conv_cache)
        x = self.prompt.out(F.relu(self.prompt.frames(x) + torch.matmul(one_hot, self.prompt.slots)))
        return x, self.projection(x), *caches


class Predict(nn.Module):
    """Prediction network: token i32 [1, 1]; h, c [layers, 1, hidden] -> dec_out [1, joint_hidden], next h and c."""

    def __init__(self, decoder: DecoderJoint):
        super().__init__()
        self.table, self.pred, self.lstm = decoder.embed.weight, decoder.pred, decoder.lstm

    def forward(self, token, h, c):
        x, hidden, cell = lstm_step(self.lstm, F.embedding(token[0], self.table), h, c)
        return self.pred(x), hidden, cell


class Join(nn.Module):
    """Joint: dec_out, enc_frame [1, joint_hidden] -> token_logits [1, n_scores], raw."""

    def __init__(self, head: MatMul):
        super().__init__()
        self.head = head

    def forward(self, dec_out, enc_frame):
        return self.head(F.relu(dec_out + enc_frame))


def graph_modules(checkpoint: Checkpoint, lookahead: int, parts: int, dtype: torch.dtype) -> tuple[dict[str, nn.Module], int]:
    """Makes the modules of every graph: graph name -> module, and the number of channels of the subsampling.

    lookahead: that of the chunks; parts: number of graphs that the layers are divided among; dtype: of the encoder. Raises
    CheckpointError, and UsageError for an offline model.
    """
    weights, spec = graph_weights(checkpoint), checkpoint.spec
    streaming = replace(spec.require_streaming(), lookaheads=(lookahead,))
    with explain_weight_errors(checkpoint), torch.no_grad():
        decoder = DecoderJoint(weights, spec.decoding)
        encoder = AppleEncoder(weights, streaming, spec.prompt)
    refuse_unused(checkpoint, encoder.unused + decoder.unused)
    real = streaming.chunk_mel_frames(lookahead, first=True)
    zeros_before = max(0, streaming.pre_encode_cache_mel_frames - real)
    modules: dict[str, nn.Module] = {
        PRE_FIRST: SubsamplingFirst(encoder.pre_encode, zeros_before),
        PRE: SubsamplingLater(encoder.pre_encode),
    }
    for name, layers in zip(conformer_parts(parts), layers_of(parts, streaming.n_layers), strict=True):
        part = encoder.layers[layers.start : layers.stop]
        if layers.stop < streaming.n_layers:
            modules[name] = Conformer(part)
        elif encoder.prompt_kernel is not None:
            modules[name] = PromptedConformer(part, decoder.enc, encoder.prompt_kernel)
        else:
            modules[name] = LastConformer(part, decoder.enc)
    modules = {name: module.to(dtype) for name, module in modules.items()}
    modules |= {PREDICT: Predict(decoder), JOINT: Join(decoder.head)}
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}, encoder.pre_encode.first.out_channels


def _stages(parts: Subsampling):
    """Yields the functions between two caches: a strided convolution of frames [1, channels, T, bands], the first of which are in
    place of its padding, and the layers up to the next one."""
    yield lambda x: F.relu(parts.first(_with_bands(x)))
    for depthwise, pointwise in zip(parts.depthwise, parts.pointwise, strict=True):
        yield lambda x, one=depthwise, two=pointwise: F.relu(two(one(_with_bands(x))))


def _with_bands(x: Tensor) -> Tensor:
    """Adds the causal padding of the mel bands."""
    return _joined(x, 3, CAUSAL_PADDING[1], CAUSAL_PADDING[3])


def _joined(x: Tensor, axis: int, before: int, behind: int) -> Tensor:
    """Concatenates zeros before and behind x on an axis. Core AI's runtime for the CPU pads much slower, a convolution's padding
    too: 32 ms of processor time for [1, 64, 29, 65] where this takes 6."""
    zeros = [x.new_zeros([size if i == axis else n for i, n in enumerate(x.shape)]) for size in (before, behind) if size]
    return torch.cat([*zeros[: bool(before)], x, *zeros[bool(before) :]], axis)


def _valid(x: Tensor, length: Tensor) -> Tensor:
    """Zeroes the frames of [1, channels, T, bands] from `length` on."""
    frames = torch.arange(x.shape[2], dtype=torch.int32)
    return x * (frames < length).to(x.dtype)[None, None, :, None]


def _flat(parts: Subsampling, x: Tensor) -> Tensor:
    """Projects [1, channels, T, bands] to frames [1, T, d]."""
    return parts.out(x.transpose(1, 2).reshape(1, x.shape[2], parts.out.weight.shape[0]))
