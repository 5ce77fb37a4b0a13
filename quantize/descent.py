"""4 bits with zero points whose product is near, not their weights: each integer makes up for the errors before it, then again.

Let E be what the rounded weight differs by, and H = X^T X of real activations: the error of the product is tr(E^T H E). With
H = V V^T, V upper triangular, it is the square of V^T E, whose row k depends on the rows of E up to k alone. So going down the
rows each integer makes up for the errors before it (GPTQ, arXiv:2210.17323, without the inverse of H: a third of the work).

Then each integer and each block's scale is decided again with all others as they are: the error is a square function of each,
smallest at the integer nearest to q + (H E)_k / (H_kk s), and at s + u^T H E / u^T H u, where u is the block's integers less its
zero point. No step makes the error larger, and none costs a byte.

All but V is in f32, and columns are taken in parts that stay in a processor's cache, each on a thread of its own. At 0.6B
dimensions (1024 x 4096 and 4096 x 1024) that is what makes it minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nemoport.quantize.blocks import LIMITS, Blocks

COLUMNS = 512  # of a part
ROWS = 32  # that are corrected integer by integer; those behind them follow in one product
RANGES = tuple(np.linspace(0.6, 1.05, 10, dtype=np.float32))  # of a block's own range


def descended(weight: np.ndarray, gram: np.ndarray, bits: int, size: int, rounds: int, damping: float) -> Blocks:
    """Rounds a weight f32 [in, out] in blocks of `size` with zero points. gram: f32 [in, in], H.

    rounds: how often all is decided again. damping: added to H's diagonal, as a share of its mean, so that channels that hardly
    vary do not take all the error.
    """
    root = gram.astype(np.float64)
    root[np.diag_indices_from(root)] += damping * np.diag(root).mean() or 1.0  # where nothing was seen, all weights count alike
    h = root.astype(np.float32)
    root = np.linalg.cholesky(root[::-1, ::-1])[::-1, ::-1]
    diagonal = np.diag(root).copy()
    root /= diagonal
    inner = [np.linalg.inv(root[here, here]).astype(np.float32) for _, here in _blocks(len(root), size)]
    root, power = root.astype(np.float32), np.square(diagonal).astype(np.float32)

    def part(first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        one = _Part(np.ascontiguousarray(weight[:, first : first + COLUMNS], np.float32), size, LIMITS[bits])
        one.decide(root, inner, power)
        for _ in range(rounds):
            one.decide_again(h)
        return one.values.astype(np.int8), one.scales, one.zeros.astype(np.int8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        values, scales, zeros = zip(*pool.map(part, range(0, weight.shape[1], COLUMNS)), strict=True)
    return Blocks(np.concatenate(values, 1), np.concatenate(scales, 1), size, np.concatenate(zeros, 1))


class _Part:
    """Some columns of a weight. values, error: f32 [in, out], integers and what they miss; scales, zeros: f32 [blocks, out]."""

    def __init__(self, weight: np.ndarray, size: int, limits: tuple[int, int]):
        self._weight, self._size, self._limits = weight, size, limits
        self.values, self.error = np.zeros_like(weight), np.zeros_like(weight)
        self.scales = np.zeros((-(-len(weight) // size), weight.shape[1]), np.float32)
        self.zeros = np.zeros_like(self.scales)

    def decide(self, root: np.ndarray, inner: Sequence[np.ndarray], power: np.ndarray) -> None:
        """root: V with its columns divided by the diagonal; inner: inverses of its blocks on the diagonal; power: the diagonal's
        squares, what an error of each row counts."""
        for block, here in _blocks(len(self._weight), self._size):
            own = inner[block]
            goal = self._weight[here] + own.T @ (root[: here.start, here].T @ self.error[: here.start])
            scale, zero = best_ranges(goal, self._limits, power[here])
            self.scales[block], self.zeros[block] = scale, zero
            values, missed = self.values[here], np.empty_like(goal)
            for first in range(0, len(goal), ROWS):
                last = min(first + ROWS, len(goal))
                for k in range(first, last):
                    values[k] = np.clip(np.rint(goal[k] / scale + zero), *self._limits)
                    missed[k] = goal[k] - (values[k] - zero) * scale
                    goal[k + 1 : last] -= np.outer(own[k, k + 1 : last], missed[k])
                goal[last:] -= own[first:last, last:].T @ missed[first:last]
            self.error[here] = self._weight[here] - (values - zero) * scale

    def decide_again(self, h: np.ndarray) -> None:
        """Each scale and each integer once more, block by block."""
        for block, here in _blocks(len(h), self._size):
            values, own, g = self.values[here], h[here, here], h[here] @ self.error
            scale, units = self.scales[block], values - self.zeros[block]
            power = (units * (own @ units)).sum(0)
            step = np.where(power > 0, (units * g).sum(0) / np.where(power > 0, power, 1.0), 0.0).astype(np.float32)
            step[scale + step == 0] = 0.0  # a block whose scale is 0 could not be corrected
            scale += step
            g -= own @ (units * step)
            for first in range(0, len(values), ROWS):
                last = min(first + ROWS, len(values))
                before = values[first:last].copy()
                for k in range(first, last):
                    values[k] = np.clip(np.rint(values[k] + g[k] / (own[k, k] * scale)), *self._limits)
                    g[k + 1 : last] -= np.outer(own[k + 1 : last, k], (values[k] - before[k - first]) * scale)
                g[last:] -= own[last:, first:last] @ ((values[first:last] - before) * scale)
            self.error[here] = self._weight[here] - (values - self.zeros[block]) * scale


def _blocks(rows: int, size: int) -> Iterator[tuple[int, slice]]:
    for block, start in enumerate(range(0, rows, size)):
        yield block, slice(start, min(start + size, rows))


def best_ranges(block: np.ndarray, limits: tuple[int, int], weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points f32 [out] of one block f32 [size, out]: for each column those of the least square error, among
    RANGES. limits: the integers; weight: f32 [size], of each row's square error."""
    low, high = limits
    least, most = np.minimum(block.min(0), 0), np.maximum(block.max(0), 0)
    best = np.full(len(least), np.inf, np.float32)
    scales, zeros, difference = np.ones_like(least), np.zeros_like(least), np.empty_like(block)
    for share in RANGES:
        scale = np.where(most > least, share * (most - least) / np.float32(high - low), np.float32(1))
        scaled = block / scale
        for shift in (-1, 0, 1):
            zero = np.clip(np.rint(low - share * least / scale) + shift, low, high)
            np.rint(np.add(scaled, zero, out=difference), out=difference)
            np.clip(difference, low, high, out=difference)
            difference -= zero
            difference -= scaled
            error = (weight @ np.square(difference, out=difference)) * np.square(scale)
            better = error < best
            best, scales, zeros = (np.where(better, new, old) for new, old in ((error, best), (scale, scales), (zero, zeros)))
    return scales, zeros
