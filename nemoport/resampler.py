"""Resampling in blocks, equal to that of the whole."""

from __future__ import annotations

import math

import numpy as np


class Resampler:
    """Resamples f32 [n] in blocks to f32 [ceil(n * target / rate)] together: bit for bit what `librosa.resample` makes of the
    whole (soxr "HQ", then cut or padded by a sample)."""

    def __init__(self, rate_hz: int, target_hz: int):
        import soxr

        self._ratio, self._in, self._out = target_hz / rate_hz, 0, 0
        self._stream = None if rate_hz == target_hz else soxr.ResampleStream(rate_hz, target_hz, 1, "float32", "HQ")

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples and returns those that became final."""
        if self._stream is None:
            return samples
        self._in += len(samples)
        out = self._stream.resample_chunk(np.ascontiguousarray(samples))
        self._out += len(out)
        return out

    def finish(self) -> np.ndarray:
        """Returns the rest."""
        if self._stream is None or not self._in:
            return np.zeros(0, np.float32)
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        count = math.ceil(self._in * self._ratio) - self._out
        return np.pad(rest[:count], (0, max(0, count - len(rest))))
