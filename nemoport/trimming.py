"""Silence around a recording, found by energy.

A model that normalises over the whole recording, as the offline ones do, is fed other features the more silence there is around
speech, and some models emit words in it.

The rule: of the signal behind the model's preemphasis, the variance of each 10 ms is taken. The recording is as loud as 0.2 s of
it are at least, and its floor is what a tenth of it stays below. Silent is what is below the greatest of three: 40 dB below loud;
10 dB above the floor, but then at least 20 dB below loud; -84 dB of full scale, an amplitude of two steps in 16 bits. Kept is all
from 0.2 s before the first 10 ms that are not silent to 0.2 s behind the last; where all are silent, nothing. So silence between
words is kept, and so is noise that is less than 20 dB below speech.
"""

from __future__ import annotations

import numpy as np

from nemoport.spec import FrontendSpec

FRAME_MS, LOUD_MS, MARGIN_MS = 10, 200, 200
FLOOR_SHARE, ABOVE_FLOOR_DB = 0.1, 10.0
BELOW_LOUD_DB, BELOW_LOUD_IN_NOISE_DB, LEAST_DBFS = 40.0, 20.0, -84.0


def sounding(samples: np.ndarray, frontend: FrontendSpec) -> tuple[int, int]:
    """Returns (start, end), in samples, of what is kept of f32 [n]; (0, 0) where all is silent."""
    rate_hz = frontend.sample_rate_hz
    frame, margin = rate_hz * FRAME_MS // 1000, rate_hz * MARGIN_MS // 1000
    if not len(samples):
        return 0, 0
    sharp = samples - np.float32(frontend.preemphasis) * np.append(samples[:1], samples[:-1])  # an offset begins with no step
    starts = np.arange(0, len(sharp), frame)
    counts = np.diff(starts, append=len(sharp))
    mean, square = (np.add.reduceat(x, starts, dtype=np.float64) / counts for x in (sharp, np.square(sharp)))
    power = square - mean**2
    ordered = 10 * np.log10(np.sort(np.maximum(power, 1e-20)))
    loud = ordered[-min(LOUD_MS // FRAME_MS, len(ordered))]  # of a shorter recording its quietest 10 ms
    in_noise = min(ordered[int(FLOOR_SHARE * len(ordered))] + ABOVE_FLOOR_DB, loud - BELOW_LOUD_IN_NOISE_DB)
    found = np.flatnonzero(power > 10 ** (max(loud - BELOW_LOUD_DB, in_noise, LEAST_DBFS) / 10))
    if not len(found):
        return 0, 0
    return max(0, int(found[0]) * frame - margin), min(len(samples), (int(found[-1]) + 1) * frame + margin)
