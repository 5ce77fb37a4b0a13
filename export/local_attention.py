"""Attention with relative positions to frames that are no further than a window, in blocks of queries: as a torch function and as
ONNX. The window is that of NeMo's rel_pos_local_attn, whose chunks of two windows and padding change nothing but where its zeros
stand.

A block of queries needs the keys of its own frames and of a window to either side, so that work and memory grow with the length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nemoport.export.blocked import DOMAIN, function_text
from nemoport.export.blocked_attention import BLOCK
from nemoport.spec import MASKED_SCORE

NAME = "LocalAttention"

# W: frames of the window; N: queries of a block; keys, values and mask have W frames before the first. Column c of a block's
# scores is the key c - W frames behind the block's first query, so row r needs position c - r of the table, and none where that
# is outside of it. With N columns of masked scores behind the table, each row is a plain offset into the flat scores, as in
# blocked_attention.py.
BODY = function_text(
    """
LocalAttention (content_query, position_query, key, value, positions, mask) => (context)
{
    zero = Constant<value = int64[1] {0}>()
    one = Constant<value = int64[1] {1}>()
    two = Constant<value = int64[1] {2}>()
    three = Constant<value = int64[1] {3}>()
    largest = Constant<value = int64[1] {BLOCK}>()
    minus_one = Constant<value = int64[1] {-1}>()
    three_zeros = Constant<value = int64[3] {0, 0, 0}>()
    masked = Constant<value = float {MASKED}>()
    frames = Shape<start = 2, end = 3>(content_query)
    lead = Shape<start = 0, end = 2>(content_query)
    table = Shape<start = 3, end = 4>(positions)
    beside = Div(table, two)
    both = Mul(beside, two)
    block = Min(largest, frames)
    rest = Sub(block, one)
    padded_frames = Add(frames, rest)
    n_blocks = Div(padded_frames, block)
    full = Mul(n_blocks, block)
    missing = Sub(full, frames)
    behind = Add(missing, beside)
    query_pads = Concat<axis = 0>(zero, three_zeros, zero, zero, missing, zero)
    contents = Pad(content_query, query_pads)
    others = Pad(position_query, query_pads)
    value_pads = Concat<axis = 0>(zero, zero, beside, zero, zero, zero, behind, zero)
    values = Pad(value, value_pads)
    key_pads = Concat<axis = 0>(three_zeros, beside, three_zeros, behind)
    keys = Pad(key, key_pads)
    masks = Pad(mask, key_pads, masked)
    table_pads = Concat<axis = 0>(three_zeros, zero, three_zeros, block)
    width = Add(block, both)
    flat_end = Mul(block, width)
    flat_shape = Concat<axis = 0>(lead, minus_one)
    rows_shape = Concat<axis = 0>(lead, block, width)
    count = Squeeze(n_blocks)
    go_on = Constant<value = bool {1}>()
    contexts = Loop(count, go_on) <body = one_block (int64 i, bool before) => (bool after, float[b, h, q, d] blocked) {
        after = Identity(before)
        index = Unsqueeze(i, zero)
        start = Mul(index, block)
        stop = Add(start, block)
        last = Add(start, width)
        content_rows = Slice(contents, start, stop, two)
        near_keys = Slice(keys, start, last, three)
        content = MatMul(content_rows, near_keys)
        position_rows = Slice(others, start, stop, two)
        distances = MatMul(position_rows, positions)
        longer = Pad(distances, table_pads, masked)
        flat = Reshape(longer, flat_shape)
        shifted = Slice(flat, zero, flat_end, two)
        position = Reshape(shifted, rows_shape)
        near_mask = Slice(masks, start, last, three)
        unmasked = Add(content, position)
        scores = Add(unmasked, near_mask)
        weights = Softmax<axis = -1>(scores)
        near_values = Slice(values, start, last, two)
        blocked = MatMul(weights, near_values)
    }>
    ordered = Transpose<perm = [1, 2, 0, 3, 4]>(contexts)
    d_k = Shape<start = 3, end = 4>(value)
    joined_shape = Concat<axis = 0>(lead, minus_one, d_k)
    joined = Reshape(ordered, joined_shape)
    context = Slice(joined, zero, frames, two)
}
""",
    BLOCK=BLOCK,
).replace("MASKED", str(MASKED_SCORE))


class LocalAttention(torch.autograd.Function):
    """Attention with relative positions within a window. Exports as one node, which `blocked.expand` replaces.

    As `RelativeAttention`, but for positions: f32 [1, h, d_k, 2 W + 1], from W frames before to W frames behind.
    """

    @staticmethod
    def forward(ctx, content_query, position_query, key, value, positions, mask) -> Tensor:
        frames, window = value.size(2), positions.size(3) // 2
        distances = torch.matmul(position_query, positions)
        column = torch.arange(frames) - torch.arange(frames).unsqueeze(1) + window
        near = (column >= 0) & (column <= 2 * window)
        columns = column.clamp(0, 2 * window).expand(*distances.shape[:3], frames)
        scores = torch.matmul(content_query, key) + torch.gather(distances, 3, columns) + mask
        return torch.matmul(torch.softmax(scores.masked_fill(~near, MASKED_SCORE), -1), value)

    @staticmethod
    def symbolic(graph, content_query, *others):
        return graph.op(f"{DOMAIN}::{NAME}", content_query, *others).setType(content_query.type())
