"""Reads audio files as mono samples at the model's rate, and refuses audio that the model cannot use."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from nemoport.errors import AudioError

# Of full scale 1.0. Mixes and resampling go over it by a little, 16-bit integers as floats by 32768. What is far above it is no
# recording, and in a batch of a dynamic INT8 graph, where streams share a scale, it costs the neighbours their resolution.
MOST_PEAK = 8.0
MOST_SECONDS = 12 * 3600  # of what is read as a whole: 2.8 GB as f32 at 16 kHz
MOST_VALUES = 1 << 30
_SKIPPED = 1 << 20  # samples at once, of a format that cannot seek
RATES_HZ = (4000, 768_000)  # of telephone, and twice that of the fastest converters

_FORMATS = "a WAV, FLAC, OGG (Vorbis, Opus), MP3 or other file that libsndfile reads"


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
    outside of RATES_HZ, longer than MOST_SECONDS, more than MOST_VALUES samples of all channels, an offset beyond the end. A
    truncated WAV or MP3 is read to its end, as NeMo does: libsndfile reports an error for a truncated FLAC only.
    """
    path = Path(path)
    samples, rate_hz = _read(path, offset_s, duration_s)
    _check_peak(samples, str(path))
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not len(mono):
        raise AudioError(f"{path} is empty.", expected="audio", found="0 samples", todo="record it again")
    if not np.isfinite(mono).all():
        raise AudioError(
            f"{path} holds samples that are not numbers.",
            expected="finite samples",
            found=f"{int((~np.isfinite(mono)).sum())} of {len(mono)} are NaN or infinite",
            todo="convert it again, for example with `ffmpeg -i in out.wav`",
        )
    mono = _resample(mono, rate_hz, sample_rate_hz)
    needed = sample_rate_hz // 100 if min_samples is None else min_samples
    if len(mono) < needed:
        raise AudioError(
            f"{path} is too short.",
            expected=f"at least {needed} samples at {sample_rate_hz} Hz ({1000 * needed / sample_rate_hz:g} ms)",
            found=f"{len(mono)} samples ({1000 * len(mono) / sample_rate_hz:g} ms)",
            todo="leave it out: it is shorter than one mel frame",
        )
    return mono


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
            todo="average the channels; divide 16-bit integers by 32768",
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


def _check_peak(samples: np.ndarray, what: str) -> None:
    peak = float(max(samples.max(), -samples.min())) if samples.size else 0.0
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


def _check_size(path: Path, samples: int, channels: int) -> None:
    if samples * channels > MOST_VALUES:
        raise AudioError(
            f"{path} is too large.",
            expected=f"at most {MOST_VALUES} samples of all channels, which take {4 * MOST_VALUES >> 30} GiB",
            found=f"{samples} of {channels} channels",
            todo="cut it, or convert it first, for example with `ffmpeg -i in -ac 1 -ar 16000 out.flac`",
        )


def _read(path: Path, offset_s: float, duration_s: float) -> tuple[np.ndarray, int]:
    """Reads f32 [samples, channels] and the rate in Hz."""
    import soundfile

    if not path.is_file():
        raise AudioError(
            f"There is no audio file at {path}.",
            expected=_FORMATS,
            found="a folder" if path.is_dir() else "nothing" if not path.exists() else "neither file nor folder",
            todo="check the path; in a manifest, paths are relative to the manifest's folder",
        )
    try:
        with soundfile.SoundFile(path) as file:
            _check_rate(path, file.samplerate)
            begin = int(min(max(offset_s, 0.0) * file.samplerate, file.frames + 1))
            if begin > file.frames:
                raise AudioError(
                    f"The segment of {path} begins after its end.",
                    expected=f"an offset of at most {file.frames / file.samplerate:g} s, the length of the file",
                    found=f"{offset_s:g} s",
                    todo="correct the offset",
                )
            count = file.frames - begin
            if duration_s > 0:
                count = int(min(count, duration_s * file.samplerate))
            check_length(count, file.samplerate, str(path))
            _check_size(path, count, file.channels)
            if begin and file.seekable():
                file.seek(begin)
            elif begin:  # GSM and some ADPCM, of which NeMo reads no segment
                for at in range(0, begin, _SKIPPED):
                    file.read(min(_SKIPPED, begin - at), dtype="float32")
            return file.read(count, dtype="float32", always_2d=True), file.samplerate
    # An error of libsndfile; a .raw without a header; an absurd length in a damaged header.
    except (soundfile.SoundFileError, TypeError, ValueError, MemoryError) as error:
        raise AudioError(
            f"{path} cannot be read as audio.",
            expected=_FORMATS,
            found=f"{path.stat().st_size} bytes; {error}",
            todo="convert it, for example with `ffmpeg -i in out.wav`",
        ) from error


def _check_rate(path: Path, rate_hz: int) -> None:
    """Raises AudioError for a rate that no recording has: one of 1 Hz becomes 16,000 times as long."""
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise AudioError(
            f"{path} has no sample rate of audio.",
            expected=f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz",
            found=f"{rate_hz} Hz",
            todo="convert it, for example with `ffmpeg -i in out.wav`",
        )


def _resample(mono: np.ndarray, rate_hz: int, target_hz: int) -> np.ndarray:
    """Resamples f32 [n] to f32 [ceil(n * target / rate)] as `librosa.resample` does: soxr, then cut or padded by a sample."""
    if rate_hz == target_hz:
        return mono
    import soxr

    count = math.ceil(len(mono) * (target_hz / rate_hz))
    out = soxr.resample(mono, rate_hz, target_hz, quality="HQ")[:count]
    return np.pad(out, (0, count - len(out)))
