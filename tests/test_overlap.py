"""Audio that two manifests share is found, whatever was done to it; other audio is not."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from nemoport.errors import CorpusError
from nemoport.speech.conditions import telephone
from nemoport.speech.corpus import check_disjoint, check_each_once, print_repeats, read_corpus
from nemoport.speech.overlap import Fingerprint, _compared, fingerprint, shared

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
RATE = 16000


@pytest.fixture(scope="module")
def speech():
    """f32 [n]: a clip of 15 s of different sentences."""
    clips = [soundfile.read(AUDIO / "eval" / f"{i:03d}.flac", dtype="float32")[0] for i in (1, 2, 5, 6, 7, 9, 10, 11, 12)]
    return np.concatenate(clips)[: 15 * RATE]


def corpus(folder, recordings, rate_hz=RATE, rows=({},), **options):
    folder.mkdir()
    for name, samples in recordings.items():
        soundfile.write(folder / name, samples, rate_hz, **options)
    listed = [{"audio_filepath": name, "text": "", **row} for name in recordings for row in rows]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, listed)))
    return read_corpus(folder / "m.jsonl", RATE)


def coded(kind, subtype, rate_hz=RATE):
    def copy(samples):
        packed = io.BytesIO()
        soundfile.write(packed, soxr.resample(samples, RATE, rate_hz), rate_hz, format=kind, subtype=subtype)
        packed.seek(0)
        return soxr.resample(soundfile.read(packed, dtype="float32")[0], rate_hz, RATE)

    return copy


COPIES = {
    "as it is": lambda x: x,
    "three samples later": lambda x: x[3:],
    "half a hop later": lambda x: x[80:],
    "louder": lambda x: np.clip(3 * x, -1, 1),
    "40 dB lower, 16 bits": lambda x: (np.round(x * 327.68) / 32768).astype(np.float32),
    "the other way up": lambda x: -x,
    "at 44.1 kHz": coded("WAV", "PCM_16", 44100),
    "at 8 kHz": coded("WAV", "PCM_16", 8000),
    "mu-law at 8 kHz": coded("WAV", "ULAW", 8000),
    "MP3": coded("MP3", "MPEG_LAYER_III"),
    "Vorbis": coded("OGG", "VORBIS"),
    "Opus": coded("OGG", "OPUS"),
    "telephone": lambda x: telephone(x, RATE),
    "among silence": lambda x: np.pad(x, (12345, 54321)),
    "in other speech": lambda x: np.concatenate([x[::-2], x, x[::-2]]),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(("begin_s", "end_s"), [(0, 15), (3.217, 6), (9.5, 11.5)])
def test_a_copy_of_a_part_is_found(speech, copy, begin_s, end_s):
    part = copy(speech[int(begin_s * RATE) : int(end_s * RATE)])
    (found,) = shared([fingerprint(speech[::-1], RATE), fingerprint(speech, RATE)], [fingerprint(part, RATE)])
    assert (found.left, found.right) == (1, 0)
    assert found.left_s[0] == pytest.approx(begin_s, abs=0.65) and found.left_s[1] == pytest.approx(
        end_s, abs=0.9
    )  # pauses do not count
    assert found.right_s[1] - found.right_s[0] == pytest.approx(found.left_s[1] - found.left_s[0])


@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_models_of_other_rates_find_the_same(speech, rate_hz):
    other = soxr.resample(speech[2 * RATE : 6 * RATE], RATE, rate_hz)
    assert shared([fingerprint(speech, RATE)], [fingerprint(other, rate_hz)])


def test_segments_of_one_recording_that_overlap_are_refused_with_their_times(tmp_path, speech):
    calibration = corpus(tmp_path / "a", {"long.flac": speech}, rows=[{"offset": 0, "duration": 10}])
    evaluation = corpus(tmp_path / "b", {"other.wav": speech / 2}, rows=[{"offset": 5, "duration": 10}])
    with pytest.raises(
        CorpusError, match=r"1 in both, such as long.flac [45]\.\d-(9|10)\.\d s = other.wav [45]\.\d-(9|10)\.\d s"
    ):
        check_disjoint(calibration, evaluation)
    apart = corpus(tmp_path / "c", {"other.wav": speech / 2}, rows=[{"offset": 10.1}])
    check_disjoint(calibration, apart)


@pytest.mark.parametrize("shared_s", [1.26, 0.9])
def test_how_much_is_found_is_as_stated(speech, shared_s):
    left, right = speech[: 5 * RATE], speech[int((5 - shared_s) * RATE) : 9 * RATE]
    assert bool(shared([fingerprint(left, RATE)], [fingerprint(right, RATE)])) == (shared_s > 1)


@pytest.mark.parametrize("seconds", [0.55, 0.8, 1.2])
def test_a_short_recording_is_found_whole(speech, seconds):
    part = speech[4 * RATE : int((4 + seconds) * RATE)]
    assert shared([fingerprint(speech, RATE)], [fingerprint(part / 3, RATE)])
    assert not shared([fingerprint(speech, RATE)], [fingerprint(part[::-1], RATE)])


@pytest.mark.parametrize("name", ["", "-tdt", "-multi"])
def test_committed_speech_raises_no_false_alarm(name):
    found = []
    calibration, evaluation = (read_corpus(AUDIO / f"{side}{name}.jsonl", RATE) for side in ("calibration", "eval"))
    check_disjoint(calibration, evaluation)
    for one in (calibration, evaluation):
        print_repeats(one, found.append)
    assert not found


def test_sounds_that_are_nobodys_are_not_shared(speech):
    t = np.arange(4 * RATE) / RATE
    random = np.random.default_rng(0)
    sounds = [np.zeros(4 * RATE), np.sin(2000 * np.pi * t), 0.3 * np.sin(2000 * np.pi * t + 1), np.full(4 * RATE, 0.25)]
    sounds += [0.1 * random.standard_normal(4 * RATE) for _ in range(2)]
    sounds += [np.concatenate([one, speech[at : at + RATE // 2]]) for one, at in ((sounds[1], 0), (sounds[2], 5 * RATE))]
    assert not [found for found in prints_of(sounds) if found.left < found.right]


def test_the_same_hum_in_two_pauses_is_not_shared(speech):
    t = np.arange(3 * RATE) / RATE
    hum = 0.0004 * sum(np.sin(2 * np.pi * 120 * k * t * (1 + 0.002 * np.sin(7 * t))) for k in range(3, 14))
    one, other = (np.concatenate([part, hum]) for part in (speech[: 3 * RATE], speech[6 * RATE : 9 * RATE]))
    assert not [found for found in prints_of([one, other]) if found.left < found.right]
    assert prints_of([hum, hum])[0].left_s[1] > 2  # by itself it is a recording as any other


def prints_of(sounds):
    prints = [fingerprint(one.astype(np.float32), RATE) for one in sounds]
    return shared(prints, prints)


def test_nothing_is_shared_with_nothing(speech):
    none = fingerprint(np.zeros(0, np.float32), RATE)
    short = fingerprint(speech[: RATE // 4], RATE)
    assert shared([none, short], [none, short]) == [] and shared([], []) == []


def test_the_limit_is_a_fifth_of_the_bits_of_any_hundred_frames():
    random = np.random.default_rng(0)
    bits, counts = random.integers(0, 1 << 32, 300, dtype=np.uint32), np.ones(300, bool)

    def differing(bits_of_32, frames=100):
        other = random.integers(0, 1 << 32, 300, dtype=np.uint32)
        other[150 : 150 + frames] = bits[50 : 50 + frames] ^ np.uint32((1 << bits_of_32) - 1)
        return _compared(Fingerprint(other, counts), Fingerprint(bits, counts), 100)

    assert differing(6) == pytest.approx((1.5, 1.5 + 0.99 + 0.266), abs=0.5)  # 6 of 32 are 0.19
    assert not differing(7)
    assert not differing(0, 50)
    uncounted = counts.copy()
    uncounted[::2] = False
    assert not _compared(Fingerprint(bits, counts), Fingerprint(bits, uncounted), 0)


def test_what_is_twice_in_one_corpus_is_printed(tmp_path, speech):
    lines = []
    parts = {
        "a.wav": speech[: 5 * RATE],
        "b.wav": speech[8 * RATE :],
        "copy.wav": speech[: 5 * RATE],
        "c.wav": speech[2 * RATE : 7 * RATE],
    }
    found = corpus(tmp_path / "a", parts)
    print_repeats(found, lines.append)
    (line,) = lines
    assert line == f"{found.path} has audio twice, which counts twice: 3 pairs, such as a.wav = copy.wav"
    with pytest.raises(CorpusError, match="1 again, such as a.wav = copy.wav"):
        check_each_once(found)
    lines.clear()
    print_repeats(replace(found, utterances=found.utterances[:2]), lines.append)
    assert not lines


def test_a_recording_with_two_prompts_is_no_repeat_of_a_part(tmp_path, speech):
    lines = []
    print_repeats(corpus(tmp_path / "a", {"a.wav": speech}, rows=[{"target_lang": "de"}, {"target_lang": "auto"}]), lines.append)
    assert lines == [f"{tmp_path / 'a' / 'm.jsonl'} has audio twice, which counts twice: 1 pairs, such as a.wav = a.wav (2)"]
