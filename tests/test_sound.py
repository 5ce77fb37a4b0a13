"""Audio in blocks: bit for bit the whole, in every format; WAV from a pipe; what only ffmpeg reads; odd files."""

import io
import os
import struct
import sys

import numpy as np
import pytest
import soundfile

from nemoport import audio
from nemoport.audio import Audio, open_audio, read_audio
from nemoport.errors import AudioError, UsageError
from nemoport.inputs import named
from nemoport.sound import container_of
from nemoport.wav import RAW_FORMATS, RawReader, WavReader

RATE = 16000


def noise(n, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, channels)).astype(np.float32)


def in_blocks(source, n):
    blocks = [source.read(n)]
    while len(blocks[-1]) == n:
        blocks.append(source.read(n))
    return np.concatenate(blocks)


FORMATS = [
    ("a.wav", 44100, 2, {"subtype": "PCM_24"}),
    ("a.wav", 8000, 1, {"subtype": "GSM610"}),
    ("a.wav", 22050, 2, {"subtype": "IMA_ADPCM"}),
    ("a.flac", 48000, 3, {}),
    ("a.mp3", 44100, 2, {}),
    ("a.ogg", 11025, 1, {"subtype": "VORBIS"}),
    ("a.opus", 48000, 2, {"format": "OGG", "subtype": "OPUS"}),
    ("a.w64", 16000, 2, {}),
    ("a.rf64", 96000, 8, {}),
]


@pytest.mark.parametrize(("name", "rate_hz", "channels", "options"), FORMATS)
def test_blocks_of_any_size_are_the_whole(tmp_path, monkeypatch, name, rate_hz, channels, options):
    import soxr

    soundfile.write(tmp_path / name, noise(rate_hz + 77, channels), rate_hz, **options)
    with soundfile.SoundFile(tmp_path / name) as file:
        mono = file.read(file.frames, dtype="float32", always_2d=True).mean(axis=1)
    count = int(np.ceil(len(mono) * (RATE / rate_hz)))
    whole = soxr.resample(mono, rate_hz, RATE, quality="HQ")[:count] if rate_hz != RATE else mono
    whole = np.pad(whole, (0, count - len(whole)))
    for values, n in ((1000, 160), (1 << 19, 4096), (7001, 1 << 20)):
        monkeypatch.setattr(audio, "BLOCK_VALUES", values)
        assert np.array_equal(in_blocks(open_audio(tmp_path / name, RATE), n), whole)
    assert np.array_equal(read_audio(tmp_path / name, RATE), whole)


def test_a_file_is_not_held_in_memory(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(200 * RATE, np.int16), RATE)
    opened = open_audio(tmp_path / "a.flac", RATE)
    opened.read(1600)
    assert opened.count <= audio.BLOCK_VALUES


SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]


def written(samples, rate_hz, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_wav_of_a_pipe_is_what_libsndfile_reads(form, subtype):
    content = written(noise(1001, 2), 8000, format=form, subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    reader = WavReader(io.BytesIO(content).read, "stdin")
    assert (reader.rate_hz, reader.channels) == (8000, 2)
    assert np.array_equal(in_blocks(reader, 77), expected)
    source, sizes = io.BytesIO(content), iter([1, 5, 3] * 100_000)
    trickle, found = WavReader(lambda n: source.read(min(n, next(sizes))), "stdin"), []
    while len(some := trickle.read_some(100)):
        found.append(some)
    assert len(found) > 100 and np.array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("name", RAW_FORMATS)
def test_raw_samples(name):
    subtype = {"s16le": "PCM_16", "s24le": "PCM_24", "s32le": "PCM_32", "f32le": "FLOAT", "u8": "PCM_U8"}
    subtype |= {"mulaw": "ULAW", "alaw": "ALAW"}
    content = written(noise(500, 2), 8000, format="RAW", subtype=subtype[name], endian="LITTLE")
    options = {"samplerate": 8000, "channels": 2, "format": "RAW", "subtype": subtype[name], "endian": "LITTLE"}
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32", **options)
    assert np.array_equal(RawReader(io.BytesIO(content + b"\1").read, "stdin", name, 8000, 2).read(10_000), expected)


def wav(samples, size, riff=0, behind=b""):
    body = (32768 * samples[:, 0]).astype("<i2").tobytes()
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return head + b"data" + struct.pack("<I", size) + body + behind


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFF0, 0x80000000])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF])
def test_a_length_that_was_never_written(tmp_path, size, riff):
    (tmp_path / "a.wav").write_bytes(wav(noise(3000), size, riff))
    expected = (32768 * noise(3000)[:, 0]).astype("<i2").astype("f4") / 32768
    assert np.array_equal(read_audio(tmp_path / "a.wav", RATE), expected)
    with open(tmp_path / "a.wav", "rb") as file:
        assert np.array_equal(Audio(WavReader(file.read, "-"), "-", RATE).read(10**6), expected)


def test_a_flac_whose_length_was_never_written(tmp_path):
    """As ffmpeg writes it into a pipe: the length in STREAMINFO is 0."""
    soundfile.write(tmp_path / "a.flac", noise(70_001), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "b.flac").write_bytes(content)
    assert np.array_equal(read_audio(tmp_path / "b.flac", RATE), read_audio(tmp_path / "a.flac", RATE))


def test_an_empty_wav_with_a_comment_is_empty(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(noise(0), 0, behind=b"LIST" + struct.pack("<I", 400) + bytes(400)))
    with pytest.raises(AudioError, match="is empty"):
        read_audio(tmp_path / "a.wav", RATE)


def test_channels(tmp_path):
    eight = noise(2000, 8)
    soundfile.write(tmp_path / "a.wav", eight, RATE, subtype="FLOAT")
    for channel in (0, 5, 7):
        assert np.array_equal(open_audio(tmp_path / "a.wav", RATE, channel=channel).read(9999), eight[:, channel])
    for channel in (-1, 8):
        with pytest.raises(AudioError, match="no channel"):
            open_audio(tmp_path / "a.wav", RATE, channel=channel)


@pytest.mark.parametrize("left", [0.0, 0.001])
def test_channels_of_opposite_phase_are_named(tmp_path, left):
    one = noise(3000)
    soundfile.write(tmp_path / "a.wav", np.concatenate([one, (left - 1) * one], 1), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="cancel each other out[\\s\\S]*--channel"):
        read_audio(tmp_path / "a.wav", RATE)
    assert len(open_audio(tmp_path / "a.wav", RATE, channel=1).read(9999)) == 3000
    soundfile.write(tmp_path / "b.wav", np.concatenate([one, 0 * one], 1), RATE)
    soundfile.write(tmp_path / "c.wav", np.zeros((3000, 2)), RATE)  # silence is silence
    assert all(len(read_audio(tmp_path / name, RATE)) == 3000 for name in ("b.wav", "c.wav"))


def test_values_beyond_32_bits_are_named(tmp_path):
    samples = noise(3000).astype(np.float64)
    samples[1234] = 1e300
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="DOUBLE")
    with pytest.raises(AudioError, match="not numbers[\\s\\S]*1234"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.wav")
    soundfile.write(tmp_path / "a.wav", noise(3000), RATE)
    os.rename(tmp_path / "a.wav", name)
    assert len(read_audio(name, RATE)) == 3000


MP4 = b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(500)


def test_what_ffmpeg_reads_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    heads = {"m4a": MP4, "webm": b"\x1a\x45\xdf\xa3" + bytes(99), "amr": b"#!AMR\n" + bytes(99), "aac": b"\xff\xf1" + bytes(99)}
    for name, head in heads.items():
        (tmp_path / f"a.{name}").write_bytes(head)
        with pytest.raises(AudioError, match="which ffmpeg reads[\\s\\S]*install ffmpeg"):
            read_audio(tmp_path / f"a.{name}", RATE)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_ffmpeg_is_read_in_blocks_and_its_failure_is_shown(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(MP4)
    (tmp_path / "out").write_bytes(wav(noise(70_000), 0xFFFFFFFF))
    script = tmp_path / "ffmpeg"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n/bin/cat {tmp_path}/out\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert len(read_audio(tmp_path / "a.m4a", RATE)) == 70_000
    assert f"-i file:{tmp_path}/a.m4a" in (tmp_path / "called").read_text()
    script.write_text(f'#!/bin/sh\n/bin/cat {tmp_path}/out\necho "moov atom not found" >&2\nexit 1\n')
    for _ in range(2):
        with pytest.raises(AudioError, match="ffmpeg: moov atom not found"):
            read_audio(tmp_path / "a.m4a", RATE)
        (tmp_path / "out").write_bytes(b"")


def test_pcm_is_no_container():
    assert not any(container_of(written(noise(200, seed=seed), RATE, format="RAW", subtype="PCM_16")) for seed in range(200))


def test_arguments_of_transcribe():
    x = noise(160)[:, 0]
    assert [n for n, _, _ in named([x, "a.wav", ("b", x), ("c", "c.wav", "de")])] == ["0", "a.wav", "b", "c"]
    assert [n for n, _, _ in named(x)] == ["0"] and [n for n, _, _ in named("a.wav")] == ["a.wav"]
    for odd in (
        5,
        [5],
        [(x, RATE)],
        (x, RATE),
        ("a", x),
        [("a", x, 3)],
        [("a", 16000)],
        [None],
        [(1, x)],
        [{"a": x}],
        [1.0, 2.0],
    ):
        with pytest.raises(UsageError, match="cannot be transcribed"):
            named(odd)


@pytest.mark.parametrize("odd", [np.zeros((1, 160), "f4"), np.zeros((160, 1), "f4"), np.zeros(160, "i2"), np.full(160, np.nan)])
def test_odd_arrays_cost_no_other_its_text(build, eval_corpus, odd):
    from nemoport.recognizer import Recognizer

    recognizer, failures = Recognizer.open(build / "fp32", threads=1), []
    with pytest.raises(AudioError):
        list(recognizer.transcribe([odd]))
    samples = eval_corpus.utterances[0].samples()
    done = list(recognizer.transcribe([samples, odd], streams=2, failed=lambda name, error: failures.append(name)))
    assert [h.id for h in done] == ["0"] and done[0].text and failures == ["1"]


def test_a_file_that_goes_bad_costs_no_other_its_text(build, eval_corpus, tmp_path, capsys):
    from nemoport.cli import main

    good = [str(utterance.path) for utterance in eval_corpus.utterances[:3]]
    samples = noise(RATE)
    samples[-5] = np.nan  # found as it is transcribed, with the others in a batch
    soundfile.write(tmp_path / "late.wav", samples, RATE, subtype="FLOAT")
    assert main(["transcribe", str(build / "fp32"), str(tmp_path / "late.wav"), *good, "--streams", "2"]) == 2
    printed = capsys.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == good
    assert "late.wav holds samples that are not numbers" in printed.err
