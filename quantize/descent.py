"""Rounding made better after error feedback: each integer and each scale again, with all others as they are.

Error feedback decides an integer once, before those that follow it. Let E be what the rounded weight differs by, and H = X^T X of
real activations: the error of the product is tr(E^T H E), a square function of each integer q and of each block's scale s. It is
smallest at the integer nearest to q + (H E)_k / (H_kk s), and at s + u^T H E / u^T H u, where u is the block's integers less its
zero point. No step makes the error larger, and none costs a byte.
"""

from __future__ import annotations

import numpy as np

from nemoport.quantize.blocks import LIMITS, Blocks

ROWS = 32  # whose products with the error are kept up to date integer by integer; the others follow in one large product


def descended(weight: np.ndarray, gram: np.ndarray, blocks: Blocks, bits: int, rounds: int, damping: float) -> Blocks:
    """The weight f32 [in, out] in blocks whose product is nearer. gram: f32 [in, in], H; damping: as of `inverse_factor`."""
    limits = LIMITS[bits]
    h = gram.astype(np.float64)
    h[np.diag_indices_from(h)] += damping * np.diag(h).mean() or 1.0  # where nothing was seen, all weights count alike
    values, scales = blocks.values.astype(np.float64), blocks.scales.astype(np.float64)
    zeros = np.zeros(scales.shape) if blocks.zeros is None else blocks.zeros.astype(np.float64)
    error = weight.astype(np.float64) - blocks.dequantized()
    product = h @ error
    for _ in range(rounds):
        for block, start in enumerate(range(0, len(values), blocks.size)):
            here = slice(start, start + blocks.size)
            own, g = h[here, here], product[here].copy()
            units = values[here] - zeros[block]
            power = (units * (own @ units)).sum(0)
            step = np.where(power > 0, (units * g).sum(0) / np.where(power > 0, power, 1.0), 0.0)
            step[scales[block] + step == 0] = 0.0  # a block whose scale is 0 could not be corrected
            scales[block] += step
            changed = units * step
            g -= own @ changed
            for first in range(0, len(units), ROWS):
                changed[first : first + ROWS] += _integers(values[here], scales[block], own, g, first, limits)
            product -= h[:, here] @ changed
    return Blocks(values.astype(np.int8), scales.astype(np.float32), blocks.size, blocks.zeros)


def _integers(
    values: np.ndarray, scale: np.ndarray, own: np.ndarray, g: np.ndarray, first: int, limits: tuple[int, int]
) -> np.ndarray:
    """Chooses the integers of ROWS rows of a block anew, in place, and brings g up to date: returns the rows' change f64.

    values: of the block, f64 [size, out]; scale: f64 [out]; own, g: H and H E of the block's rows; first: the first row.
    """
    rows = slice(first, first + ROWS)
    changed = np.zeros(g[rows].shape)
    near = g[rows].copy()
    for k in range(len(near)):
        row = first + k
        best = np.clip(np.round(values[row] + near[k] / (own[row, row] * scale)), *limits)
        changed[k] = (best - values[row]) * scale
        values[row] = best
        near -= np.outer(own[rows, row], changed[k])
    g -= own[:, rows] @ changed
    return changed
