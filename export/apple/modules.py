"""The torch modules of nemoport/apple_graphs.py: fixed shapes and one stream, so that torch.export takes them whole.

Made of the same pieces as the ONNX encoders and equal to NeMo's streaming. The subsampling keeps the one frame that each of
its convolutions will see again (kernel 3, stride 2, causal) where NeMo's streaming hands in nine mel frames again and drops
the two frames that they yield: the same for a lookahead of 1 and more, where nine frames hold all that a kept frame hears.
At lookahead 0 NeMo's second window has one real frame behind eight of zeros, and what the convolutions make of those zeros is
not the zeros of their padding: `SubsamplingFirst` then hands on what NeMo's second window would have computed.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.apple.graphs import JOINT, PRE, PRE_FIRST, PREDICT, conformer_parts, layers_of
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.decoder import DecoderJoint
from nemoport.export.encoder import Convolution as CachedConvolution
from nemoport.export.encoder import StreamingEncoder
from nemoport.export.layers import CAUSAL_PADDING, MatMul, SelfAttentionWeights, Subsampling, Weights, heads
from nemoport.export.lstm_step import lstm_step
from nemoport.export.prompt import PromptKernel
from nemoport.export.shared import check_frontend_buffers
from nemoport.export.weight_errors import explain_weight_errors, refuse_unused


class SelfAttention(SelfAttentionWeights):
    """Attention over cached and new keys and values of one stream."""

    def __init__(self, weights: Weights, name: str, n_heads: int, positions: Tensor):
        """positions: [C + 2T - 1, d_model], from the furthest past to the furthest future of a chunk of T frames."""
        super().__init__(weights, name, n_heads)
        projected = positions @ weights.take(f"{name}.linear_pos.weight").t()
        self.positions = nn.Parameter(heads(projected, n_heads).contiguous().unsqueeze(0))  # [1, h, d_k, C + 2T - 1]
        self.scale_queries(self.positions.shape[2])

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: [1, T, d], keys, values: [h, C, d_k], mask: [1, 1, T, C + T] -> ([1, T, d], next keys, next values)."""
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


class Convolution(CachedConvolution):
    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x: [1, T, d], cache: [d, k - 1] -> ([1, T, d], next cache)."""
        value, gate = self.pointwise_conv1(x).split(self.depthwise_weight.shape[0], -1)
        seen = torch.cat([cache.unsqueeze(0), (value * torch.sigmoid(gate)).transpose(1, 2)], 2)
        y = F.conv1d(seen, self.depthwise_weight, self.depthwise_bias, groups=self.depthwise_weight.shape[0])
        return self.pointwise_conv2(F.silu(self.norm(y.transpose(1, 2)))), seen[0, :, x.shape[1] :]


class AppleEncoder(StreamingEncoder):
    """Holds the encoder's parts, for chunks of one lookahead; the graphs take them from here."""

    ATTENTION, CONVOLUTION, FOLD_HALF = SelfAttention, Convolution, True


class SubsamplingLater(nn.Module):
    """mel [1, 8(r + 1), n_mels], length i32 [1], three caches [1, channels, 1, bands] -> embeds [1, r + 1, d], the next ones."""

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
    """mel [1, 1 + 8r, n_mels], length i32 [1] -> as `SubsamplingLater`. zeros_before: frames of zeros that NeMo's second
    window has in front of this one."""

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


class Conformer(nn.Module):
    """Some of the encoder's layers. x [1, T, d], neg_mask [1, 1, T, C + T], k_cache, v_cache [layers, h, C, d_k], conv_cache
    [layers, d, k - 1] -> y [1, T, d] and the three caches, next."""

    def __init__(self, layers: nn.ModuleList):
        super().__init__()
        self.layers = layers

    def forward(self, x, neg_mask, k_cache, v_cache, conv_cache):
        kept = []
        for i, layer in enumerate(self.layers):
            x, *caches = layer(x, (k_cache[i], v_cache[i], neg_mask), (conv_cache[i],))
            kept.append(caches)
        return x, *(torch.stack(caches) for caches in zip(*kept, strict=True))


class LastConformer(Conformer):
    """The last of them: encoded [1, T, d] and enc_proj [1, T, joint_hidden] in the place of y."""

    def __init__(self, layers: nn.ModuleList, projection: MatMul):
        super().__init__(layers)
        self.projection = projection

    def forward(self, x, neg_mask, k_cache, v_cache, conv_cache):
        x, *caches = super().forward(x, neg_mask, k_cache, v_cache, conv_cache)
        return x, self.projection(x), *caches


class PromptedConformer(Conformer):
    """The same of a model that is told a language: one_hot [1, slots]."""

    def __init__(self, layers: nn.ModuleList, projection: MatMul, prompt: PromptKernel):
        super().__init__(layers)
        self.projection, self.prompt = projection, prompt

    def forward(self, x, neg_mask, k_cache, v_cache, conv_cache, one_hot):
        x, *caches = super().forward(x, neg_mask, k_cache, v_cache, conv_cache)
        x = self.prompt.out(F.relu(self.prompt.frames(x) + torch.matmul(one_hot, self.prompt.slots)))
        return x, self.projection(x), *caches


class Predict(nn.Module):
    """token i32 [1, 1], h, c [layers, 1, hidden] -> dec_out [1, joint_hidden], next h and c."""

    def __init__(self, decoder: DecoderJoint):
        super().__init__()
        self.table, self.pred, self.lstm = decoder.embed.weight, decoder.pred, decoder.lstm

    def forward(self, token, h, c):
        x, hidden, cell = lstm_step(self.lstm, F.embedding(token[0], self.table), h, c)
        return self.pred(x), hidden, cell


class Join(nn.Module):
    """dec_out, enc_frame [1, joint_hidden] -> token_logits [1, scores], raw."""

    def __init__(self, head: MatMul):
        super().__init__()
        self.head = head

    def forward(self, dec_out, enc_frame):
        return self.head(F.relu(dec_out + enc_frame))


def graph_modules(checkpoint: Checkpoint, lookahead: int, parts: int, dtype: torch.dtype) -> tuple[dict[str, nn.Module], int]:
    """Graph name -> module, and the channels of the subsampling. dtype: of the encoder. Raises CheckpointError."""
    weights, spec = checkpoint.load_weights(), checkpoint.spec
    check_frontend_buffers(checkpoint, weights)
    streaming = replace(spec.streaming, lookaheads=(lookahead,))
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
        elif spec.prompt:
            modules[name] = PromptedConformer(part, decoder.enc, encoder.prompt_kernel)
        else:
            modules[name] = LastConformer(part, decoder.enc)
    modules = {name: module.to(dtype) for name, module in modules.items()}
    modules |= {PREDICT: Predict(decoder), JOINT: Join(decoder.head)}
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}, encoder.pre_encode.first.out_channels


def _stages(parts: Subsampling):
    """What stands between two caches: a strided convolution of frames [1, channels, T, bands], the first of which stand for
    its padding, and what follows it up to the next."""
    yield lambda x: F.relu(parts.first(_with_bands(x)))
    for depthwise, pointwise in zip(parts.depthwise, parts.pointwise, strict=True):
        yield lambda x, one=depthwise, two=pointwise: F.relu(two(one(_with_bands(x))))


def _with_bands(x: Tensor) -> Tensor:
    """With the causal padding of the mel bands."""
    return _joined(x, 3, CAUSAL_PADDING[1], CAUSAL_PADDING[3])


def _joined(x: Tensor, axis: int, before: int, behind: int) -> Tensor:
    """With zeros on an axis. By joining, for Core AI's runtime for the CPU pads much slower, a convolution's padding too: 32 ms
    of processor time for [1, 64, 29, 65] where this takes 6."""
    zeros = [x.new_zeros([size if i == axis else n for i, n in enumerate(x.shape)]) for size in (before, behind) if size]
    return torch.cat([*zeros[: bool(before)], x, *zeros[bool(before) :]], axis)


def _valid(x: Tensor, length: Tensor) -> Tensor:
    """Zeroes the frames of [1, channels, T, bands] from `length` on."""
    frames = torch.arange(x.shape[2], dtype=torch.int32)
    return x * (frames < length).to(x.dtype)[None, None, :, None]


def _flat(parts: Subsampling, x: Tensor) -> Tensor:
    return parts.out(x.transpose(1, 2).reshape(1, x.shape[2], parts.out.weight.shape[0]))
