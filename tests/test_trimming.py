"""Silence around a recording: what is left out, and the times of what stays."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nemoport.cli.__main__ import main
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.package import card_rules
from nemoport.recognizer import Recognizer
from nemoport.spec import FrontendSpec
from nemoport.speech.corpus import read_corpus
from nemoport.trimming import sounding

REFERENCE = Path(__file__).parent.parent / "reference"
RATE = 16000
FRONTEND = FrontendSpec(RATE, 128, 512, 400, 160, 0.97, 2.0**-24, "per_feature")
MARGIN = 3200
BEHIND = 160 + MARGIN  # the preemphasis of the sample behind speech is in the next 10 ms


def noise(seconds: float, rms: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, rms, round(seconds * RATE)).astype(np.float32)


def zeros(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def join(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


SPEECH = noise(1.0, 0.05)
LSB = 2.0**-15
KEPT = {
    "nothing": (zeros(0), (0, 0)),
    "zeros": (zeros(3), (0, 0)),
    "steps of one bit": ((np.random.default_rng(0).integers(-1, 2, 48000) * LSB).astype(np.float32), (0, 0)),
    "a constant": (np.full(48000, 0.01, np.float32), (0, 0)),
    "an offset": (np.float32(0.05) + join(zeros(2), SPEECH, zeros(3)), (32000 - MARGIN, 48000 + BEHIND)),
    "zeros around": (join(zeros(2), SPEECH, zeros(3)), (32000 - MARGIN, 48000 + BEHIND)),
    "less silence than the margin": (join(zeros(0.1), SPEECH, zeros(0.15)), (0, 20000)),
    "silence within": (join(zeros(1), SPEECH, zeros(5), SPEECH, zeros(1)), (16000 - MARGIN, 128000 + BEHIND)),
    "no silence": (SPEECH, (0, 16000)),
    "5 ms": (noise(0.005, 0.05), (0, 80)),
    "a beginning 35 dB below": (join(zeros(1), SPEECH * 0.018, SPEECH, zeros(1)), (16000 - MARGIN, 48000 + BEHIND)),
    "a beginning 45 dB below": (join(zeros(1), SPEECH * 0.0056, SPEECH, zeros(1)), (32000 - MARGIN, 48000 + BEHIND)),
    "60 dB quieter": (1e-3 * join(zeros(2), SPEECH, zeros(3)), (32000 - MARGIN, 48000 + MARGIN)),
    "noise 26 dB below": (noise(6, 0.0025) + join(zeros(2), SPEECH, zeros(3)), (32000 - MARGIN, 48000 + MARGIN)),
    "noise 14 dB below": (noise(6, 0.01) + join(zeros(2), SPEECH, zeros(3)), (0, 96000)),
    "an edge within 10 ms": (join(zeros(2), zeros(0.005), SPEECH, zeros(3)), (32000 - MARGIN, 48160 + MARGIN)),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept(name):
    samples, kept = KEPT[name]
    before = samples.copy()
    assert sounding(samples, FRONTEND) == kept
    assert np.array_equal(samples, before)


def test_a_click_makes_nothing_of_speech_silent():
    samples = join(zeros(2), 0.01 * SPEECH, zeros(3))
    samples[2000] = 0.9
    assert sounding(samples, FRONTEND) == (0, 48000 + MARGIN)


@pytest.fixture(scope="module")
def tdt(tmp_path_factory):
    build = tmp_path_factory.mktemp("tdt")
    export_checkpoint(read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo")), build)
    return build / "fp32"


@pytest.fixture(scope="module")
def spoken():
    utterances = read_corpus(REFERENCE / "audio" / "eval-tdt.jsonl", RATE).utterances
    return next(u for u in utterances if 1.4 < u.seconds < 2)


@pytest.mark.parametrize("pass_s", [None, 31.0])  # one pass; windows
def test_times_are_the_recordings(pass_s, tdt, spoken):
    speech = join(spoken.samples(), zeros(9), spoken.samples(), zeros(9), spoken.samples(), zeros(16), spoken.samples())
    padded = join(zeros(20), speech, zeros(30))
    start, end = sounding(padded, FRONTEND)
    assert 19 * RATE < start < 20.5 * RATE
    wanted = next(Recognizer.open(tdt, threads=1, pass_s=pass_s).transcribe([("", padded[start:end])]))
    found = next(Recognizer.open(tdt, threads=1, pass_s=pass_s, trim_silence=True).transcribe([("", padded)]))
    assert found.tokens == wanted.tokens and found.audio_seconds == len(padded) / RATE
    np.testing.assert_allclose(np.subtract(found.token_seconds, wanted.token_seconds), start / RATE)
    assert found.words[0].start == pytest.approx(wanted.words[0].start + start / RATE)


def test_silence_has_no_words(tdt):
    untouched, trimmed = (Recognizer.open(tdt, threads=1, trim_silence=trim) for trim in (False, True))
    six_seconds = [("a", zeros(6)), ("b", SPEECH[:0])]
    assert [h.text for h in untouched.transcribe(six_seconds)] == ["P", ""], "NeMo has that too"
    assert [(h.text, h.words) for h in trimmed.transcribe(six_seconds, streams=2)] == [("", ()), ("", ())]


def test_streaming_models_refuse_it(build, capsys, spoken):
    with pytest.raises(UsageError, match="streaming"):
        Recognizer.open(build / "fp32", trim_silence=True)
    assert main(["transcribe", str(build / "fp32"), str(spoken.path), "--trim-silence"]) == 2
    assert "streaming" in capsys.readouterr().err


def test_the_card_says_what_silence_gives():
    facts = {
        name: SimpleNamespace(spec=SimpleNamespace(frontend=replace(FRONTEND, normalize=name))) for name in ("NA", "per_feature")
    }
    assert "--trim-silence" in card_rules.front_end(facts["per_feature"])  # type: ignore[arg-type]
    assert "ilence" not in card_rules.front_end(facts["NA"])  # type: ignore[arg-type]


def test_on_the_command_line(tdt, tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "silence.wav", zeros(6), RATE)
    for options, text in (([], "P"), (["--trim-silence"], "")):
        assert main(["transcribe", str(tdt), str(tmp_path / "silence.wav"), *options]) in (0, None)
        assert capsys.readouterr().out.rstrip("\n").split("\t")[1] == text
