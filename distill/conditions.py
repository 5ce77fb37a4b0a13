"""Recordings as they reach recognisers, lower and in noise: a student that is trained on clean speech alone leaves its teacher
where the audio is not clean."""

from __future__ import annotations

import numpy as np

from nemoport.frontend import LogMel, mel_filterbank
from nemoport.spec import FrontendSpec

LOWER_DB = (0.0, 40.0)
SNR_DB = (-5.0, 30.0)  # of mel energies; pre-emphasis makes 10 dB of white noise beside speech about 0 dB of these
NOISE_S = 30.0


class Conditions:
    """Changes log-mel frames as a lower level and added noise would change them: energies are scaled, and those of white or pink
    noise are added, as the powers of independent signals add up in the mean.

    spec: of frames that are not normalised.
    """

    def __init__(self, spec: FrontendSpec, seed: int):
        self._guard = np.float32(spec.log_guard)
        random = np.random.default_rng([seed, 1])
        white = random.standard_normal(int(NOISE_S * spec.sample_rate_hz))
        spectrum = np.fft.rfft(white)
        pink = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), len(white))
        compute = LogMel(spec, mel_filterbank(spec))
        self._noises = []
        for samples in (white, pink):
            mel = compute.whole((samples / np.abs(samples).max()).astype(np.float32))
            self._noises.append(self._energies(mel.T))

    def changed(self, frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """frames: f32 [T, n_mels], log-mel -> the same under conditions that are drawn."""
        if random.random() < 0.5:
            frames = self.lower(frames, random.uniform(*LOWER_DB))
        return self.noisy(frames, random.uniform(*SNR_DB), random) if random.random() < 0.75 else frames

    def lower(self, frames: np.ndarray, by_db: float) -> np.ndarray:
        return self._log(self._energies(frames) * np.float32(10 ** (-by_db / 10)))

    def noisy(self, frames: np.ndarray, snr_db: float, random: np.random.Generator) -> np.ndarray:
        noise = self._noises[int(random.integers(len(self._noises)))]
        start = int(random.integers(max(1, len(noise) - len(frames) + 1)))
        noise = np.resize(noise[start : start + len(frames)], frames.shape)  # repeated, where it is shorter
        energies = self._energies(frames)
        return self._log(energies + noise * (energies.mean() / noise.mean() * np.float32(10 ** (-snr_db / 10))))

    def _energies(self, frames: np.ndarray) -> np.ndarray:
        return np.maximum(np.exp(frames) - self._guard, 0)

    def _log(self, energies: np.ndarray) -> np.ndarray:
        return np.log(energies + self._guard)
