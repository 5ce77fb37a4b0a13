"""Attention with relative positions over a whole utterance, in blocks of queries: as a torch function and as ONNX.

All scores of a 390 s pass at once are 8 heads x 4875 x 4875, those of the positions twice that: 2.3 GB for one layer.
Here a Loop takes BLOCK queries at a time, so that memory grows with the length and not with its square; and as a block
needs the positions of T + BLOCK - 1 distances, not 2 T - 1, it is also less work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nemoport.export.blocked import DOMAIN, function_text

NAME, LIMITED = "RelativeAttention", "LimitedAttention"
BLOCK = 128  # queries at most; a shorter recording is one block of its own length

# T: frames; N: queries of a block. Row i of a block that begins at s needs the columns of the table from T - 1 - s - i on, so
# the block's window of the table begins at column T - 1 - s once N - 1 columns of zeros stand before the table. With one column
# more than a row needs, each row is a plain offset into the flat scores: the shift of arXiv 1901.02860, appendix B, without its
# copy.
_TEXT = function_text(
    """
OPERATOR (content_query, position_query, key, value, positions, INPUTS) => (context)
{
    zero = Constant<value = int64[1] {0}>()
    one = Constant<value = int64[1] {1}>()
    two = Constant<value = int64[1] {2}>()
    three = Constant<value = int64[1] {3}>()
    largest = Constant<value = int64[1] {BLOCK}>()
    minus_one = Constant<value = int64[1] {-1}>()
    three_zeros = Constant<value = int64[3] {0, 0, 0}>()
    frames = Shape<start = 2, end = 3>(content_query)
    lead = Shape<start = 0, end = 2>(content_query)
    block = Min(largest, frames)
    rest = Sub(block, one)
    padded_frames = Add(frames, rest)
    n_blocks = Div(padded_frames, block)
    full = Mul(n_blocks, block)
    missing = Sub(full, frames)
    pads = Concat<axis = 0>(zero, three_zeros, zero, zero, missing, zero)
    contents = Pad(content_query, pads)
    others = Pad(position_query, pads)
    table_pads = Concat<axis = 0>(three_zeros, rest, three_zeros, one)
    table = Pad(positions, table_pads)
    last = Sub(frames, one)
    width = Add(frames, rest)
    wide = Add(width, one)
    kept = Mul(width, block)
    flat_end = Add(rest, kept)
    flat_shape = Concat<axis = 0>(lead, minus_one)
    rows_shape = Concat<axis = 0>(lead, block, width)
    count = Squeeze(n_blocks)BEFORE
    go_on = Constant<value = bool {1}>()
    contexts = Loop(count, go_on) <body = one_block (int64 i, bool before) => (bool after, float[b, h, q, d] blocked) {
        after = Identity(before)
        index = Unsqueeze(i, zero)
        start = Mul(index, block)
        stop = Add(start, block)
        content_rows = Slice(contents, start, stop, two)
        content = MatMul(content_rows, key)
        position_rows = Slice(others, start, stop, two)
        from = Sub(last, start)
        to = Add(from, wide)
        window = Slice(table, from, to, three)
        distances = MatMul(position_rows, window)
        flat = Reshape(distances, flat_shape)
        shifted = Slice(flat, rest, flat_end, two)
        rows = Reshape(shifted, rows_shape)
        position = Slice(rows, zero, frames, three)
        unmasked = Add(content, position)
SCORES
        weights = Softmax<axis = -1>(scores)
        blocked = MatMul(weights, value)
    }>
    ordered = Transpose<perm = [1, 2, 0, 3, 4]>(contexts)
    d_k = Shape<start = 3, end = 4>(value)
    joined_shape = Concat<axis = 0>(lead, minus_one, d_k)
    joined = Reshape(ordered, joined_shape)
    context = Slice(joined, zero, frames, two)
}
""",
    BLOCK=BLOCK,
)


def _body(**parts: str) -> str:
    text = _TEXT
    for place, part in parts.items():
        text = text.replace(place, part)
    return text


BODY = _body(OPERATOR=NAME, INPUTS="mask", BEFORE="", SCORES="        scores = Add(unmasked, mask)")
LIMITED_BODY = _body(
    OPERATOR=LIMITED,
    INPUTS="mask, earliest, latest, masked",
    # The rows that are padded see the first column.
    BEFORE="""
    row_pads = Concat<axis = 0>(three_zeros, three_zeros, missing, zero)
    earliest_of_all = Pad(earliest, row_pads)
    latest_of_all = Pad(latest, row_pads)
    first_column = Squeeze(zero)
    step = Squeeze(one)
    behind_columns = Squeeze(frames)
    columns = Range(first_column, behind_columns, step)""",
    SCORES="""
        earliest_of_rows = Slice(earliest_of_all, start, stop, two)
        latest_of_rows = Slice(latest_of_all, start, stop, two)
        too_early = Less(columns, earliest_of_rows)
        too_late = Greater(columns, latest_of_rows)
        unseen = Or(too_early, too_late)
        unseen_score = CastLike(unseen, masked)
        limits = Mul(unseen_score, masked)
        all_masks = Add(mask, limits)
        scores = Add(unmasked, all_masks)""",
)


class RelativeAttention(torch.autograd.Function):
    """Attention with relative positions (Transformer-XL, arXiv 1901.02860, section 3.3). Exports as one node, which
    `blocked.expand` replaces.

    content_query, position_query: f32 [B, h, T, d_k]; key: f32 [B, h, d_k, T]; value: f32 [B, h, T, d_k]; positions: f32
    [1, h, d_k, 2 T - 1], from the furthest past to the furthest future; mask: f32 [B, 1, 1, T], added to the scores
    -> f32 [B, h, T, d_k].
    """

    @staticmethod
    def forward(ctx, content_query, position_query, key, value, positions, mask) -> Tensor:
        frames = value.size(2)
        distances = torch.matmul(position_query, positions)
        row = torch.arange(frames).unsqueeze(1)
        columns = (frames - 1 - row + torch.arange(frames)).expand(*distances.shape[:3], frames)
        scores = torch.matmul(content_query, key) + torch.gather(distances, 3, columns) + mask
        return torch.matmul(torch.softmax(scores, -1), value)

    @staticmethod
    def symbolic(graph, content_query, *others):
        return graph.op(f"{DOMAIN}::{NAME}", content_query, *others).setType(content_query.type())


class LimitedAttention(torch.autograd.Function):
    """RelativeAttention whose rows see some columns only. earliest, latest: i64 [1, 1, T, 1], the columns that each row sees;
    masked: f32 [], added to the scores of the others."""

    @staticmethod
    def forward(ctx, content_query, position_query, key, value, positions, mask, earliest, latest, masked) -> Tensor:
        column = torch.arange(value.size(2))
        unseen = (column < earliest) | (column > latest)
        mask = mask + unseen.to(mask.dtype) * masked
        return RelativeAttention.forward(ctx, content_query, position_query, key, value, positions, mask)

    @staticmethod
    def symbolic(graph, content_query, *others):
        return graph.op(f"{DOMAIN}::{LIMITED}", content_query, *others).setType(content_query.type())
