"""The centred subsampling of a whole recording, in blocks: as a torch function and as ONNX.

Its first convolution yields 256 channels of 64 bands for every second mel frame: 1.3 GB for 390 s, and the runtime holds
that more than once. Here a Loop makes BLOCK encoder frames at a time from the 8 BLOCK + 7 mel frames of their receptive field.
What lies before the recording or behind its end is zero before each convolution, as padding and masks make it in NeMo.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nemoport.export.blocked import DOMAIN, function_text

NAME = "CentredSubsampling"
BLOCK = 64  # encoder frames at most

BODY = function_text(
    """
CentredSubsampling (mel, length1, length2, w0, b0, w2, b2, w3, b3, w5, b5, w6, b6) => (frames)
{
    zero = Constant<value = int64[1] {0}>()
    one = Constant<value = int64[1] {1}>()
    two = Constant<value = int64[1] {2}>()
    three = Constant<value = int64[1] {3}>()
    four = Constant<value = int64[1] {4}>()
    seven = Constant<value = int64[1] {7}>()
    eight = Constant<value = int64[1] {8}>()
    largest = Constant<value = int64[1] {BLOCK}>()
    minus_one = Constant<value = int64[1] {-1}>()
    batch_axes = Constant<value = int64[3] {1, 2, 3}>()
    place_axes = Constant<value = int64[3] {0, 1, 3}>()
    scalar_zero = Constant<value = int64 {0}>()
    scalar_one = Constant<value = int64 {1}>()
    ends1 = Unsqueeze(length1, batch_axes)
    ends2 = Unsqueeze(length2, batch_axes)
    batch = Shape<start = 0, end = 1>(mel)
    n_mel = Shape<start = 2, end = 3>(mel)
    rounded = Add(n_mel, seven)
    n_frames = Div(rounded, eight)
    block = Min(largest, n_frames)
    block_less_one = Sub(block, one)
    block_mel = Mul(block, eight)
    block_seen = Add(block_mel, seven)
    four_blocks = Mul(block, four)
    n_places1 = Add(four_blocks, three)
    two_blocks = Mul(block, two)
    n_places2 = Add(two_blocks, one)
    places1 = Squeeze(n_places1)
    places2 = Squeeze(n_places2)
    range1 = Range(scalar_zero, places1, scalar_one)
    range2 = Range(scalar_zero, places2, scalar_one)
    filled = Add(n_frames, block_less_one)
    n_blocks = Div(filled, block)
    all_mel = Mul(n_blocks, block_mel)
    behind = Sub(all_mel, n_mel)
    pads = Concat<axis = 0>(zero, zero, seven, zero, zero, zero, behind, zero)
    padded = Pad(mel, pads)
    count = Squeeze(n_blocks)
    go_on = Constant<value = bool {1}>()
    blocks = Loop (count, go_on) <body = one_block (int64 i, bool before) => (bool after, float[b, c, n, f] made) {
        after = Identity(before)
        index = Unsqueeze(i, zero)
        first = Mul(index, block)
        start = Mul(first, eight)
        stop = Add(start, block_seen)
        seen = Slice(padded, start, stop, two)
        x0 = Conv<strides = [2, 2], pads = [0, 1, 0, 1]>(seen, w0, b0)
        x1 = Relu(x0)
        begin4 = Mul(first, four)
        begin1 = Sub(begin4, three)
        places_1 = Add(range1, begin1)
        at1 = Unsqueeze(places_1, place_axes)
        not_before1 = GreaterOrEqual(at1, zero)
        not_behind1 = Less(at1, ends1)
        is_valid1 = And(not_before1, not_behind1)
        valid1 = Cast<to = 1>(is_valid1)
        x2 = Mul(x1, valid1)
        x3 = Conv<strides = [2, 2], pads = [0, 1, 0, 1], group = CHANNELS>(x2, w2, b2)
        x4 = Conv(x3, w3, b3)
        x5 = Relu(x4)
        begin2_ = Mul(first, two)
        begin2 = Sub(begin2_, one)
        places_2 = Add(range2, begin2)
        at2 = Unsqueeze(places_2, place_axes)
        not_before2 = GreaterOrEqual(at2, zero)
        not_behind2 = Less(at2, ends2)
        is_valid2 = And(not_before2, not_behind2)
        valid2 = Cast<to = 1>(is_valid2)
        x6 = Mul(x5, valid2)
        x7 = Conv<strides = [2, 2], pads = [0, 1, 0, 1], group = CHANNELS>(x6, w5, b5)
        x8 = Conv(x7, w6, b6)
        made = Relu(x8)
    }>
    ordered = Transpose<perm = [1, 0, 3, 2, 4]>(blocks)
    wide = Shape<start = 3, end = 5>(ordered)
    width = ReduceProd<keepdims = 1>(wide)
    flat_shape = Concat<axis = 0>(batch, minus_one, width)
    flat = Reshape(ordered, flat_shape)
    frames = Slice(flat, zero, n_frames, one)
}
""",
    BLOCK=BLOCK,
)


class CentredSubsampling(torch.autograd.Function):
    """The convolutions of NeMo's ConvSubsampling (dw_striding by 8, centred). Exports as one node, which `blocked.expand`
    replaces.

    width: channels * bands / 8, a number; mel: f32 [B, 1, T, bands], zeros behind each length; length1, length2: i64 [B], valid
    frames behind the first and the second stride; then weights and biases of the convolutions 0, 2, 3, 5 and 6
    -> f32 [B, T', width].
    """

    @staticmethod
    def forward(ctx, width, mel, length1, length2, *parameters) -> Tensor:
        (first, *pairs), channels = zip(parameters[0::2], parameters[1::2], strict=True), parameters[0].size(0)
        x = F.relu(F.conv2d(mel, *first, stride=2, padding=1))
        for length, depthwise, pointwise in zip((length1, length2), pairs[0::2], pairs[1::2], strict=True):
            valid = torch.arange(x.size(2)).unsqueeze(0) < length.unsqueeze(1)
            x = F.conv2d(x * valid[:, None, :, None].to(x.dtype), *depthwise, stride=2, padding=1, groups=channels)
            x = F.relu(F.conv2d(x, *pointwise))
        return x.transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(graph, width, mel, length1, length2, *parameters):
        channels = parameters[0].type().sizes()[0]
        out = graph.op(f"{DOMAIN}::{NAME}", mel, length1, length2, *parameters, channels_i=channels)
        return out.setType(mel.type().with_sizes([None, None, width]))
