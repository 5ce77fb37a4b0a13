"""Reads audio as mono samples at the model's rate, in blocks, and refuses audio that the model cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nemoport.errors import AudioError
from nemoport.resampler import Resampler
from nemoport.sound import Sound, open_sound
from nemoport.wav import WavReader

# Of full scale 1.0. Mixes and resampling go over it by a little, 16-bit integers as floats by 32768. What is far above it is no
# recording, and in a batch of a dynamic INT8 graph, where streams share a scale, it costs the neighbours their resolution.
MOST_PEAK = 8.0
CANCELLED = 0.01  # of the channels' peak: what is left of channels of opposite phase that are averaged
MOST_SECONDS = 12 * 3600  # of what is transcribed as one recording: 2.8 GB as f32 at 16 kHz
RATES_HZ = (4000, 768_000)  # of telephone, and twice that of the fastest converters
BLOCK_VALUES = 1 << 19  # read at once, of all channels


def read_audio(
    path: Path | str, sample_rate_hz: int, min_samples: int | None = None, *, offset_s: float = 0.0, duration_s: float = 0.0
) -> np.ndarray:
    """Reads a file, or a segment of it, as f32 [samples], mono, full scale 1.0, at `sample_rate_hz`.

    Bit-equal to NeMo's `AudioSegment.from_file(path, target_sr=..., offset=..., duration=..., channel_selector="average")`: the
    segment is cut at the file's own rate, channels are averaged, and the result is resampled by soxr "HQ" (the default of
    `librosa.resample`) to ceil(samples * ratio) samples.
    min_samples: the least length, in samples at `sample_rate_hz`, one mel frame; by default the 10 ms that are the hop of every
    NeMo model here. offset_s, duration_s: finite; each cuts at the sample before it. An offset of 0 or less is the beginning; a
    duration of 0 or less, or beyond the end, reaches to the end.

    Raises AudioError: no such file, a folder, not audio, damaged, empty, too short, not finite, a peak above MOST_PEAK, a rate
    outside of RATES_HZ, longer than MOST_SECONDS, channels that cancel each other out, an offset beyond the end. A truncated WAV
    or MP3 is read to its end, as NeMo does: libsndfile reports an error for a truncated FLAC only.
    """
    audio = open_audio(path, sample_rate_hz, min_samples=min_samples, offset_s=offset_s, duration_s=duration_s)
    return audio.read(MOST_SECONDS * sample_rate_hz + 1)


def open_audio(
    path: Path | str,
    sample_rate_hz: int,
    *,
    channel: int | None = None,
    min_samples: int | None = None,
    offset_s: float = 0.0,
    duration_s: float = 0.0,
) -> Audio:
    """Opens a file, or a segment of it, to read it in blocks; see `read_audio`. channel: the one to read, from 0; None for the
    average of all. Raises AudioError."""
    sound = open_sound(Path(path))
    frames = _cut(sound, str(path), offset_s, duration_s)
    return Audio(sound, str(path), sample_rate_hz, channel=channel, min_samples=min_samples, frames=frames)


class Audio:
    """Mono samples at a model's rate, read in blocks. The samples, and the errors, are those of `read_audio`, whatever the
    blocks; what makes a recording unusable may show at its end only.

    seconds: its length, or the most that it is; None where that shows at its end only.
    """

    def __init__(
        self,
        sound: Sound,
        name: str,
        sample_rate_hz: int,
        *,
        channel: int | None = None,
        min_samples: int | None = None,
        frames: int | None = None,
    ):
        """sound: read from where it is; name: the subject of errors; frames: most to read of it. Raises AudioError."""
        _check_rate(name, sound.rate_hz)
        known = [count for count in (frames, sound.frames) if count is not None]
        if known:
            check_length(min(known), sound.rate_hz, name)
        self.seconds = min(known) / sound.rate_hz if known else None
        if channel is not None and not 0 <= channel < sound.channels:
            raise AudioError(
                f"{name} has no channel {channel}.",
                expected=f"0 to {sound.channels - 1}",
                found=str(channel),
                todo="count from 0, or leave it out for the average",
            )
        self._sound, self._name, self._rate_hz, self._channel, self._left = sound, name, sample_rate_hz, channel, frames
        self._needed = sample_rate_hz // 100 if min_samples is None else min_samples
        self._resampler = Resampler(sound.rate_hz, sample_rate_hz)
        self._ready = np.zeros(0, np.float32)
        self._ended = False
        self._frames = self.count = 0  # read of the sound; samples that became of them
        self._loudest = self._mixed = 0.0  # peak of the channels, and of their average

    def read(self, n: int) -> np.ndarray:
        """Returns the next f32 [n]; fewer than n only at the end. Raises AudioError."""
        parts, left = [np.zeros(0, np.float32)], n
        while left and (len(self._ready) or not self._ended):
            if not len(self._ready):
                most = max(1, BLOCK_VALUES // self._sound.channels)
                most = most if self._left is None else min(most, self._left)
                self._ready = self._take(self._sound.read(most) if most else np.zeros((0, 1), np.float32))
                check_length(self._frames, self._sound.rate_hz, self._name)
            parts.append(self._ready[:left])
            self._ready = self._ready[left:]
            left -= len(parts[-1])
        return np.concatenate(parts)

    def packets(self) -> Iterator[np.ndarray]:
        """Yields samples as they come, f32 [n] each. Raises AudioError."""
        read = self._sound.read_some if isinstance(self._sound, WavReader) else self._sound.read
        while not self._ended:
            yield self._take(read(max(1, BLOCK_VALUES // self._sound.channels)))

    def _take(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next f32 [k, channels] of the sound, none at its end, and returns what became of them."""
        if len(samples):
            mono = self._mono(samples)
            self._frames += len(mono)
            self._left = None if self._left is None else self._left - len(mono)
            out = self._resampler.feed(mono)
        else:
            out, self._ended = self._resampler.finish(), True
        self.count += len(out)
        if self._ended:
            self._check_whole()
        return out

    def _mono(self, samples: np.ndarray) -> np.ndarray:
        _check_peak(samples, self._name)
        if samples.shape[1] == 1 or self._channel is not None:
            mono = samples[:, self._channel or 0]
        else:
            mono = samples.mean(axis=1)
            self._loudest, self._mixed = max(self._loudest, _peak(samples)), max(self._mixed, _peak(mono))
        if not np.isfinite(mono).all():
            raise AudioError(
                f"{self._name} holds samples that are not numbers.",
                expected="finite samples",
                found=f"the first that is NaN, or beyond 32 bits, is {self._frames + int(np.isfinite(mono).argmin())}",
                todo="convert it again, for example with `ffmpeg -i in out.wav`",
            )
        return mono

    def _check_whole(self) -> None:
        if not self._frames and self._needed:
            raise AudioError(f"{self._name} is empty.", expected="audio", found="0 samples", todo="record it again")
        if self.count < self._needed:
            raise AudioError(
                f"{self._name} is too short.",
                expected=f"at least {self._needed} samples at {self._rate_hz} Hz ({1000 * self._needed / self._rate_hz:g} ms)",
                found=f"{self.count} samples ({1000 * self.count / self._rate_hz:g} ms)",
                todo="leave it out: it is shorter than one mel frame",
            )
        if self._mixed < CANCELLED * self._loudest:
            raise AudioError(
                f"The channels of {self._name} cancel each other out: they have opposite phases.",
                expected="channels whose average has sound",
                found=f"a peak of {self._loudest:g}, and of {self._mixed:g} in the average",
                todo="choose one of them (--channel 0)",
            )


def checked_samples(samples: np.ndarray) -> np.ndarray:
    """Returns the samples as f32 [n], mono. Raises AudioError unless they are finite floating-point numbers in one dimension."""
    try:
        samples = np.asarray(samples)
    except ValueError:  # lists of different lengths
        samples = np.asarray(None)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise AudioError(
            "The samples have the wrong shape or type.",
            expected="float32 [n], mono, full scale 1.0",
            found=f"{samples.dtype} {list(samples.shape)}",
            todo="samples[0] of [1, n], samples[:, 0] of [n, 1]; average the channels; divide 16-bit integers by 32768",
        )
    finite = np.isfinite(samples)
    if not finite.all():
        bad = int(finite.argmin())
        raise AudioError(
            "The samples are not all numbers.",
            expected="finite samples",
            found=f"{samples[bad]} at sample {bad} of {len(samples)}",
            todo="repair what delivers them",
        )
    _check_peak(samples, "The samples")
    return samples.astype(np.float32, copy=False)


def _peak(samples: np.ndarray) -> float:
    return float(max(samples.max(), -samples.min())) if samples.size else 0.0


def _check_peak(samples: np.ndarray, what: str) -> None:
    peak = _peak(samples)
    if MOST_PEAK < peak < np.inf:  # what is not finite has an error of its own
        raise AudioError(
            f"{what} cannot be a recording: the peak is {peak:g}.",
            expected=f"full scale 1.0, and at most {MOST_PEAK:g}",
            found=f"{peak:g}",
            todo="divide 16-bit integers by 32768; repair what delivers the samples",
        )


def check_length(samples: int, rate_hz: int, what: str) -> None:
    """Raises AudioError for audio that is longer than MOST_SECONDS. what: the subject of the error."""
    if samples > MOST_SECONDS * rate_hz:
        raise AudioError(
            f"{what} is too long.",
            expected=f"at most {MOST_SECONDS // 3600} hours in one piece",
            found=f"{samples / rate_hz / 3600:.4g} hours",
            todo="cut it; a streaming model takes a live stream of any length",
        )


def _cut(sound: Sound, name: str, offset_s: float, duration_s: float) -> int | None:
    """Goes to the beginning of a segment and returns its frames; None: to the end. Raises AudioError for one beyond the end."""
    begin = int(min(max(offset_s, 0.0), 2 * MOST_SECONDS) * sound.rate_hz)
    if begin > (sound.skip(begin) if begin else 0):
        length = f", {sound.frames / sound.rate_hz:g} s," if sound.frames is not None else ""
        raise AudioError(
            f"The segment of {name} begins after its end.",
            expected=f"an offset within the length of the file{length}",
            found=f"{offset_s:g} s",
            todo="correct the offset",
        )
    return int(min(duration_s, 2 * MOST_SECONDS) * sound.rate_hz) if duration_s > 0 else None


def _check_rate(name: str, rate_hz: int) -> None:
    """Raises AudioError for a rate that no recording has: one of 1 Hz becomes 16,000 times as long."""
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise AudioError(
            f"{name} has no sample rate of audio.",
            expected=f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz",
            found=f"{rate_hz} Hz",
            todo="convert it, for example with `ffmpeg -i in out.wav`",
        )
