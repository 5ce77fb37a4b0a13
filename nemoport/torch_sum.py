"""torch's float32 sum, rounding for rounding.

NeMo divides what remains of a band after its mean is taken by the band's deviation and 1e-5. In silence the deviation is
nothing, and what remains is the rounding of the mean, about 2e-6: features of up to 0.4, on which some models emit a token.
To give NeMo's features of silence is to round as NeMo does.

torch's order (`aten/src/ATen/native/cpu/SumKernel.cpp`) is the same with and without AVX2 and AVX512: the sums of eight
lanes; of each lane four interleaved ones; of each of these blocks of 16, of these blocks of 16 again, and once more.
tests/test_frontend.py compares the two.
"""

from __future__ import annotations

import numpy as np

_LANES, _INTERLEAVED, _BLOCK, _LEVELS = 8, 4, 16, 4


def torch_sum(rows: np.ndarray) -> np.ndarray:
    """Sums each row as `torch.sum(rows, 1)` does on an x86 CPU: f32 [n, k] -> f32 [n, 1]."""
    n, k = rows.shape
    lanes = _LANES if k >= _LANES else 1
    steps = k // lanes
    laned = np.moveaxis(rows[:, : steps * lanes].reshape(n, steps, lanes), 1, 0)
    whole = steps // _INTERLEAVED * _INTERLEAVED
    sums = _cascade(laned[:whole].reshape(-1, _INTERLEAVED, n, lanes))
    total = _in_turn([*laned[whole:], *sums[1:]], sums[0])
    tail = _in_turn(rows[:, steps * lanes :].T, np.zeros(n, np.float32))
    return _in_turn(total.T, tail)[:, None]


def _cascade(parts: np.ndarray) -> np.ndarray:
    """Sums f32 [k, ...] over its first axis, block by block."""
    zero, rests = np.zeros(parts.shape[1:], np.float32), []
    for _ in range(_LEVELS - 1):
        blocks, rest = np.split(parts, [len(parts) // _BLOCK * _BLOCK])
        rests.append(_in_turn(rest, zero))
        blocks = blocks.reshape(-1, _BLOCK, *zero.shape)
        parts = _in_turn(np.moveaxis(blocks, 1, 0), np.zeros((len(blocks), *zero.shape), np.float32))
    return _in_turn([*rests, _in_turn(parts, zero)], zero)


def _in_turn(parts, total: np.ndarray) -> np.ndarray:
    """Adds the parts to the total, one after another: numpy's own sum chooses its order."""
    for part in parts:
        total = total + part
    return total
