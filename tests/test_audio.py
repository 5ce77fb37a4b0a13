"""Reading audio: equal to NeMo's reader, and a clear refusal of everything else."""

import numpy as np
import pytest
import soundfile

from nemoport import audio
from nemoport.audio import checked_samples, read_audio
from nemoport.errors import AudioError

REFUSAL = r"\.\n  expected: .+\n  found: .+\n  do: .+"


def sound(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    """f32 [samples, channels]"""
    rng = np.random.default_rng(rate_hz + channels)
    t = np.arange(round(seconds * rate_hz))[:, None] / rate_hz
    tones = 0.3 * np.sin(2 * np.pi * (300 + 70 * np.arange(channels)) * t)
    return (tones + 0.05 * rng.standard_normal((len(t), channels))).astype(np.float32)


def nemos(path, rate_hz: int) -> np.ndarray:
    pytest.importorskip("nemo")
    from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

    return AudioSegment.from_file(str(path), target_sr=rate_hz, channel_selector="average").samples


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000])
def test_wav_equals_nemo_bit_for_bit(tmp_path, rate_hz, channels):
    for seconds in (0.5, 0.5003):
        soundfile.write(tmp_path / "a.wav", sound(seconds, rate_hz, channels), rate_hz)
        ours, theirs = read_audio(tmp_path / "a.wav", 16000), nemos(tmp_path / "a.wav", 16000)
        assert ours.dtype == np.float32 and ours.ndim == 1
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "rate_hz", "options"),
    [
        ("a.flac", 16000, {}),
        ("a.flac", 44100, {"subtype": "PCM_24"}),
        ("a.wav", 16000, {"subtype": "FLOAT"}),
        ("a.wav", 16000, {"subtype": "DOUBLE"}),
        ("a.wav", 8000, {"subtype": "ULAW"}),
        ("a.ogg", 44100, {"subtype": "VORBIS"}),
        ("a.opus", 48000, {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", 44100, {}),
    ],
)
def test_formats_equal_nemo_bit_for_bit(tmp_path, name, rate_hz, options):
    soundfile.write(tmp_path / name, sound(0.5, rate_hz, 2), rate_hz, **options)
    ours = read_audio(str(tmp_path / name), 16000)
    assert np.array_equal(ours, nemos(tmp_path / name, 16000))
    assert abs(len(ours) - 8000) < 1600  # lossy formats add some samples


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], 1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav", 16000), np.full(1600, 0.125, np.float32))


def test_integers_become_full_scale_one(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([-32768, 16384] * 100, np.int16), 16000)
    assert read_audio(tmp_path / "a.wav", 16000).tolist() == [-1.0, 0.5] * 100


def test_missing_file(tmp_path):
    with pytest.raises(AudioError, match="no audio file at .*a.wav" + REFUSAL):
        read_audio(tmp_path / "a.wav", 16000)


def test_folder(tmp_path):
    with pytest.raises(AudioError, match="found: a folder"):
        read_audio(tmp_path, 16000)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.txt", "a.raw", "a.mp3"])
@pytest.mark.parametrize("content", [b"", b"not audio at all\n" * 40])
def test_not_audio(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=REFUSAL):
        read_audio(tmp_path / name, 16000)


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_no_samples(tmp_path, rate_hz):
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), rate_hz)
    with pytest.raises(AudioError, match="is empty" + REFUSAL):
        read_audio(tmp_path / "a.wav", 16000)


def test_shorter_than_a_frame(tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(1, 16000)[:159], 16000)
    with pytest.raises(AudioError, match=r"at least 160 samples at 16000 Hz \(10 ms\)\n  found: 159 samples"):
        read_audio(tmp_path / "a.wav", 16000)
    soundfile.write(tmp_path / "a.wav", sound(1, 16000)[:160], 16000)
    assert len(read_audio(tmp_path / "a.wav", 16000)) == 160
    with pytest.raises(AudioError, match="at least 200 samples"):
        read_audio(tmp_path / "a.wav", 16000, min_samples=200)
    soundfile.write(tmp_path / "a.wav", sound(1, 48000)[:477], 48000)  # 159 samples at 16 kHz
    with pytest.raises(AudioError, match="at least 160 samples"):
        read_audio(tmp_path / "a.wav", 16000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, bad):
    samples = sound(0.1, 44100, 2)
    samples[7, 1] = bad
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers" + REFUSAL):
        read_audio(tmp_path / "a.wav", 16000)


def test_damaged_flac(tmp_path):
    soundfile.write(tmp_path / "a.flac", sound(2, 16000), 16000)
    content = (tmp_path / "a.flac").read_bytes()
    for damaged in (content[: len(content) // 2], content[:20000] + bytes(3000) + content[23000:], content[:60]):
        (tmp_path / "b.flac").write_bytes(damaged)
        with pytest.raises(AudioError, match=REFUSAL):
            read_audio(tmp_path / "b.flac", 16000)


def test_packets():
    samples = np.array([0.5, -0.5], np.float32)
    assert checked_samples(samples) is samples
    assert checked_samples(samples.astype(np.float64)).dtype == np.float32
    assert len(checked_samples(np.zeros(0, np.float32))) == 0
    for bad in (np.zeros(4, np.int16), np.zeros((1, 4), np.float32), np.float32(1), np.array([np.nan]), "abc"):
        with pytest.raises(AudioError, match=REFUSAL):
            checked_samples(bad)


@pytest.mark.parametrize("peak", [8.001, 100, 32768, 3e38, -3e38])
def test_what_is_far_above_full_scale_is_no_recording(tmp_path, peak):
    samples = sound(0.1, 44100, 2)
    samples[7, 1] = peak
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(AudioError, match="cannot be a recording" + r".+" + REFUSAL):
        read_audio(tmp_path / "a.wav", 16000)
    with pytest.raises(AudioError, match="cannot be a recording" + r".+" + REFUSAL):
        checked_samples(samples[:, 1])


def test_a_mix_above_full_scale_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", 8 * np.sign(sound(0.1, 16000)), 16000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "a.wav", 16000)).max() == 8


@pytest.mark.parametrize("rate_hz", [1, 100, 3999, 2_000_000])
def test_a_rate_of_no_recording_is_refused(tmp_path, rate_hz):
    soundfile.write(tmp_path / "a.wav", sound(1, 16000), rate_hz)
    with pytest.raises(AudioError, match="no sample rate of audio" + REFUSAL):
        read_audio(tmp_path / "a.wav", 16000)


def test_a_recording_has_a_longest_length(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros((16000, 2), np.float32), 16000)
    assert len(read_audio(tmp_path / "a.wav", 16000)) == 16000
    monkeypatch.setattr(audio, "MOST_SECONDS", 0.99)
    with pytest.raises(AudioError, match="too long"):
        read_audio(tmp_path / "a.wav", 16000)


def test_the_length_is_judged_before_a_sample_is_read(tmp_path):
    """Thirteen hours in a small file: FLAC packs silence."""
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 4000, 1, "PCM_16") as file:
        for _ in range(13):
            file.write(np.zeros(4000 * 3600, np.int16))
    with pytest.raises(AudioError, match="too long"):
        read_audio(tmp_path / "a.flac", 16000)
