"""Log-mel features equal to NeMo's `AudioToMelSpectrogramPreprocessor` in eval mode: of a whole signal or of a stream.

Conventions (NeMo `parts/preprocessing/features.py`, `FilterbankFeatures`): preemphasis over the whole signal, its first
sample kept; frames of `n_fft` samples centred on every hop, zeros outside the signal; symmetric Hann window; power; mel
filterbank; log(energy + guard); samples // hop valid frames. Preemphasis, windowing, guard and normalisation are float32 as
in NeMo, so that both transform and round the same numbers; the rest is float64. The difference that remains is the rounding
of NeMo's float32 transform, in bands that are quiet beside loud ones (427 s of speech: at most 4.7e-4, 99.9 % of values
within 6.2e-5).
"""

from __future__ import annotations

import numpy as np

from nemoport.audio import checked_samples
from nemoport.errors import ArtifactError, AudioError, NemoportError
from nemoport.spec import FrontendSpec
from nemoport.torch_sum import torch_sum

_BLOCK_FRAMES = 256  # bounds the memory that a long signal needs


def mel_filterbank(spec: FrontendSpec) -> np.ndarray:
    """Computes the filterbank f32 [n_mels, n_fft // 2 + 1]: slaney's triangles of equal area, from 0 Hz to half the sample rate.

    The formula of `librosa.filters.mel` with its defaults, which NeMo calls.
    """
    knee_hz, hz_per_mel = 1000.0, 200.0 / 3  # linear below the knee, logarithmic above
    knee_mel, log_step = knee_hz / hz_per_mel, np.log(6.4) / 27.0
    top_hz = spec.sample_rate_hz / 2
    top_mel = top_hz / hz_per_mel if top_hz < knee_hz else knee_mel + np.log(top_hz / knee_hz) / log_step
    mels = np.linspace(0.0, top_mel, spec.n_mels + 2)
    edges_hz = np.where(mels < knee_mel, hz_per_mel * mels, knee_hz * np.exp(log_step * (mels - knee_mel)))
    ramps = edges_hz[:, None] - np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate_hz)
    widths = np.diff(edges_hz)[:, None]
    bank = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:])).astype(np.float32)
    return (bank * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]).astype(np.float32)


def hann_window(win_samples: int) -> np.ndarray:
    """Computes `torch.hann_window(periodic=False)`, f32 [win_samples], whose angles are float32; it is zero at both ends."""
    angles = np.arange(win_samples, dtype=np.float32) * np.float32(2 * np.pi / (win_samples - 1))
    return np.float32(0.5) - np.float32(0.5) * np.cos(angles.astype(np.float64)).astype(np.float32)


def nemo_extra_frame(n_mels: int) -> np.ndarray:
    """Returns f32 [n_mels, 1] of zeros: the frame behind the valid ones in NeMo's output, which its streaming buffer encodes."""
    return np.zeros((n_mels, 1), np.float32)


def per_feature(mel: np.ndarray) -> np.ndarray:
    """Normalises each band of f32 [n_mels, T], T >= 1, to mean 0 and deviation 1, as NeMo's `normalize_batch` of one utterance.

    Rounded as there: where a band hardly moves, the quotient is the rounding of its mean, see nemoport/torch_sum.py.
    """
    count = mel.shape[1]
    behind = ((0, 0), (0, 1))  # NeMo's extra frame is in its sums, as 0
    centred = mel - torch_sum(np.pad(mel, behind)) / np.float32(count)
    variance = torch_sum(np.pad(centred * centred, behind)) / np.float32(max(count - 1, 1))
    return centred / (np.sqrt(variance) + np.float32(1e-5))


class LogMel:
    """Log-mel of whole signals. filterbank: f32 [n_mels, n_fft // 2 + 1], the checkpoint's own. Raises ArtifactError.

    A frame's bits do not depend on its neighbours. BLAS could break that: its summation order depends on the row count.
    """

    def __init__(self, spec: FrontendSpec, filterbank: np.ndarray):
        shape, win = (spec.n_mels, spec.n_fft // 2 + 1), spec.win_samples
        known = spec.normalize in ("NA", "per_feature") and spec.hop_samples < win - 1 < spec.n_fft
        if not known or np.shape(filterbank) != shape or not np.isfinite(filterbank).all():
            raise ArtifactError(
                "The front end cannot be computed.",
                expected=f'a finite filterbank {list(shape)}, normalize "NA" or "per_feature", hop < window <= n_fft',
                found=f"filterbank {list(np.shape(filterbank))}, {spec}",
                todo="export the checkpoint again; if this stays, report the checkpoint",
            )
        self.spec = spec
        # The window is zero at both ends: without them a frame is final one sample earlier. Where it lies within n_fft
        # changes only the phase, so frames are cut to the window and zeros follow it.
        self.window = hann_window(win)[1:-1]
        self.before_samples = spec.n_fft // 2 - (spec.n_fft - win) // 2 - 1
        self.after_samples = len(self.window) - self.before_samples  # frame f: [hop f - before, hop f + after)
        # A band sums the bins where it has weights; one without any (too many bands for n_fft) keeps a bin of weight 0.
        bands = [np.flatnonzero(row) if row.any() else np.array([0]) for row in filterbank]
        self._bins = np.concatenate(bands)
        self._weights = np.concatenate([row[b] for row, b in zip(filterbank, bands, strict=True)]).astype(np.float64)
        self._band_starts = np.cumsum([0] + [len(band) for band in bands[:-1]])

    def whole(self, samples: np.ndarray) -> np.ndarray:
        """Computes f32 [n_mels, L // hop] from samples f32 [L], mono, at spec.sample_rate_hz. Raises AudioError."""
        signal = self.preemphasis(np.pad(checked_samples(samples), (1, 0)))
        padded = np.pad(signal, (self.before_samples, self.after_samples))
        mel = self.frames(padded, count := len(signal) // self.spec.hop_samples)
        return per_feature(mel) if self.spec.normalize == "per_feature" and count else mel

    def preemphasis(self, samples: np.ndarray) -> np.ndarray:
        """Filters f32 [1 + n] to f32 [n]. The first input is the sample before them: at the start 0, which keeps the first."""
        return samples[1:] - np.float32(self.spec.preemphasis) * samples[:-1]

    def frames(self, signal: np.ndarray, count: int) -> np.ndarray:
        """Computes a frame and those after it, f32 [n_mels, count], not normalised.

        signal: f32 [n] after preemphasis, beginning `before_samples` ahead of the first frame's centre.
        """
        mel = np.empty((self.spec.n_mels, count), np.float32)
        signal = np.ascontiguousarray(signal, np.float32)  # because the next line reads its bytes
        windows = np.ndarray((count, len(self.window)), "f4", signal, strides=(4 * self.spec.hop_samples, 4))
        for at in range(0, count, _BLOCK_FRAMES):
            block = (windows[at : at + _BLOCK_FRAMES] * self.window).astype(np.float64)
            spectrum = np.fft.rfft(block, self.spec.n_fft)
            power = spectrum.real**2 + spectrum.imag**2
            energy = np.add.reduceat(power.take(self._bins, axis=1) * self._weights, self._band_starts, axis=1)
            # The guard is added in float32, as in NeMo: in silence the rounding shows, see `per_feature`.
            guarded = energy.astype(np.float32) + np.float32(self.spec.log_guard)
            mel[:, at : at + len(block)] = np.log(guarded.astype(np.float64)).T
        return mel


class LogMelStream:
    """Log-mel of one stream. `feed` and `finish` together return what `LogMel.whole` does, bit for bit. Raises NemoportError for
    a front end that needs the whole utterance.

    Frame f is returned as soon as hop * f + after_samples samples are in: 160 f + 199 for NeMo's window.
    """

    def __init__(self, spec: FrontendSpec, filterbank: np.ndarray):
        if spec.normalize == "per_feature":
            what = "This front end cannot be streamed: it normalises over the whole utterance."
            todo = "use LogMel.whole on complete recordings"
            raise NemoportError(what, expected='normalize "NA"', found='normalize "per_feature"', todo=todo)
        self._mel = LogMel(spec, filterbank)
        # Samples of the first frame: a frame is valid once its hop is complete.
        self._first_samples = max(self._mel.after_samples, self._mel.spec.hop_samples)
        self._signal = np.zeros(self._mel.before_samples, np.float32)  # after preemphasis, from the next frame's start
        self._waiting: list[np.ndarray] = []  # packets since the last frame, untouched: small packets cost little
        self._last = np.zeros(1, np.float32)  # the sample before them
        self._samples = self._frames = 0  # received; returned
        self._finished = False

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Takes samples f32 [n], any n, and returns f32 [n_mels, k], the frames that became final.

        Raises AudioError for samples that cannot be used, which change nothing, and after `finish`.
        """
        if self._finished:
            raise AudioError("Audio came after the end of the stream.", todo="make a new LogMelStream")
        samples = checked_samples(samples)
        if len(samples):
            self._waiting.append(samples.copy())  # the caller may fill its buffer anew
        self._samples += len(samples)
        return self._emit(max(0, (self._samples - self._first_samples) // self._mel.spec.hop_samples + 1 - self._frames))

    def missing_samples(self, frames: int) -> int:
        """Returns how many samples have to follow until so many frames more, at least one, are final; at most 0 where none."""
        return self._first_samples + (self._frames + frames - 1) * self._mel.spec.hop_samples - self._samples

    def finish(self) -> np.ndarray:
        """Returns the remaining frames, f32 [n_mels, k], with zeros behind the signal. Further calls return no frames."""
        self._finished = True
        return self._emit(self._samples // self._mel.spec.hop_samples - self._frames, self._mel.after_samples)

    def _emit(self, count: int, zeros: int = 0) -> np.ndarray:
        if not count:
            return np.empty((self._mel.spec.n_mels, 0), np.float32)
        samples = np.concatenate([self._last, *self._waiting])
        signal = np.concatenate([self._signal, self._mel.preemphasis(samples), np.zeros(zeros, np.float32)])
        self._signal = signal[count * self._mel.spec.hop_samples :].copy()
        self._last, self._waiting = samples[-1:].copy(), []
        self._frames += count
        return self._mel.frames(signal, count)
