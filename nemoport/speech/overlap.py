"""Finds audio that two recordings share, whatever their files, gain, rate, container or place in time.

The fingerprint is that of Haitsma and Kalker (A highly robust audio fingerprinting system, ISMIR 2002): 32 bits a frame, each
whether the difference of two neighbouring bands' energies grows. Equal frames give the places to compare, and the bits that
differ within a second decide.

Share of the bits that differ in 100 frames, chance being 0.5: in the nearest of different recordings 0.28 (committed, synthetic
speech) and 0.31 (real speech); in a copy 0.00 at 8 or 44.1 kHz, 0.05 shifted by half a hop, and at the 95th percentile of windows
0.10 as MP3, 0.13 as Opus, 0.18 as mu-law at 8 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATE_HZ = 4000  # of what is compared: bands reach to 1900 Hz
WINDOW_SAMPLES, HOP_SAMPLES = 1024, 40  # 256 and 10 ms
COMPARED_FRAMES = 100  # of which so many bits may differ; 1.26 s of audio, or the whole of a shorter recording
LEAST_FRAMES = 25  # of a recording: 0.5 s
MOST_DIFFERENT = 0.2
STEADY = 1e-3  # a frame whose energies change by a smaller share counts as different: tones and silence are nobody's
QUIET = 0.001  # of a recording's mean energy: what is below it is a pause, whose hum may be that of another pause
COMMONEST = 200  # frames that are equal to so many say nothing
BLOCK_FRAMES = 4096
_HOP_S = HOP_SAMPLES / RATE_HZ
_SPAN_S = (WINDOW_SAMPLES + HOP_SAMPLES) / RATE_HZ  # of the two windows that a frame compares
_EDGES_HZ = np.geomspace(300, 1900, 34)


@dataclass(frozen=True)
class Fingerprint:
    """bits: u32 [frames]; counts: bool [frames], whether a frame has a sound that changes and is no pause."""

    bits: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Shared:
    """What two recordings share: their indices, and where it is in either, as (begin, end) in seconds, to about half a second."""

    left: int
    right: int
    left_s: tuple[float, float]
    right_s: tuple[float, float]


def fingerprint(samples: np.ndarray, rate_hz: int) -> Fingerprint:
    """Fingerprint of samples, f32 [n], mono."""
    import soxr

    low = soxr.resample(samples, rate_hz, RATE_HZ) if len(samples) else samples
    if len(low) < WINDOW_SAMPLES + HOP_SAMPLES:
        return Fingerprint(np.zeros(0, np.uint32), np.zeros(0, bool))
    windows = np.lib.stride_tricks.sliding_window_view(low, WINDOW_SAMPLES)[::HOP_SAMPLES]
    hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / RATE_HZ)[:, None]
    bands = ((hz >= _EDGES_HZ[:-1]) & (hz < _EDGES_HZ[1:])).astype(np.float32)
    taper = np.hanning(WINDOW_SAMPLES).astype(np.float32)
    blocks = (windows[at : at + BLOCK_FRAMES] * taper for at in range(0, len(windows), BLOCK_FRAMES))
    energies = np.concatenate([np.abs(np.fft.rfft(block)).astype(np.float32) ** 2 @ bands for block in blocks])
    grown = np.diff(energies, axis=0)
    bits = (np.diff(grown, axis=1) > 0) @ (1 << np.arange(32, dtype=np.uint32))
    energy = energies[1:].sum(axis=1)
    return Fingerprint(bits, (np.abs(grown).sum(axis=1) > STEADY * energy) & (energy > QUIET * energy.mean()))


def shared(left: Sequence[Fingerprint], right: Sequence[Fingerprint]) -> list[Shared]:
    """Finds what recordings of two lists share, each pair once: 1.26 s or more, or the whole of one of 0.5 s or more, of which
    a fifth may be pauses."""
    found: dict[tuple[int, int], Shared] = {}
    for one, other, lag in _places(left, right):
        if (one, other) not in found and (times := _compared(left[one], right[other], lag)):
            begin, end = times
            shift = lag * _HOP_S
            found[one, other] = Shared(one, other, (begin, end), (begin - shift, end - shift))
    return [found[pair] for pair in sorted(found)]


def _places(left: Sequence[Fingerprint], right: Sequence[Fingerprint]) -> list[tuple[int, int, int]]:
    """Where frames are equal: (index, index, frames by which the first recording is ahead), places with most of them first."""
    codes, index, at = _indexed(left)
    others, other_index, other_at = _indexed(right)
    order = np.argsort(codes, kind="stable")
    first = np.searchsorted(codes[order], others, "left")
    count = np.searchsorted(codes[order], others, "right") - first
    count[count > COMMONEST] = 0
    pairs = np.repeat(np.arange(len(others)), count)
    equal = order[np.arange(len(pairs)) - np.repeat(np.cumsum(count) - count - first, count)]
    places = np.stack([index[equal], other_index[pairs], at[equal] - other_at[pairs]], axis=1)
    places, votes = np.unique(places, axis=0, return_counts=True)
    return [(int(one), int(other), int(lag)) for one, other, lag in places[np.argsort(-votes, kind="stable")]]


def _indexed(prints: Sequence[Fingerprint]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frames that count of all recordings: bits, index of the recording, number of the frame in it."""
    at = [np.flatnonzero(one.counts) for one in prints]
    bits = [one.bits[frames] for one, frames in zip(prints, at, strict=True)]
    none = np.zeros(0, np.int64)
    index = np.repeat(np.arange(len(prints)), [len(frames) for frames in at])
    return np.concatenate([none.astype(np.uint32), *bits]), index, np.concatenate([none, *at])


def _compared(left: Fingerprint, right: Fingerprint, lag: int) -> tuple[float, float] | None:
    """Returns where in `left` it is equal to `right`, in seconds; None if nowhere. lag: as in `_places`."""
    begin, end = max(0, lag), min(len(left.bits), len(right.bits) + lag)
    frames = min(COMPARED_FRAMES, len(left.bits), len(right.bits))
    if frames < LEAST_FRAMES or end - begin < frames:
        return None
    there = slice(begin - lag, end - lag)
    different = np.bitwise_count(left.bits[begin:end] ^ right.bits[there]) / 32
    different[~(left.counts[begin:end] & right.counts[there])] = 0.5
    total = np.concatenate([[0.0], np.cumsum(different)])
    alike = np.flatnonzero((total[frames:] - total[:-frames]) / frames < MOST_DIFFERENT)
    if not len(alike):
        return None
    first, last = (begin + int(alike[i]) for i in (0, -1))
    return first * _HOP_S, (last + frames - 1) * _HOP_S + _SPAN_S
