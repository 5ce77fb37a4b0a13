"""Live sessions of offline models: a detector's speech is cut into utterances, each transcribed once, and no speech is lost."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nemoport import vad
from nemoport.errors import AudioError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.utterances import EndRule
from nemoport.vad import MARGIN_S, RATE_HZ, STEP, SileroVad, SpokenUtterances
from nemoport.words import Segment, Word

ROOT = Path(__file__).resolve().parent.parent
MARGIN = round(MARGIN_S * RATE_HZ)
INF = float("inf")


class Script:
    """A detector that finds speech where samples are above 0.5, and is not sure where they are 0.4."""

    def score(self, samples):
        assert len(samples) == STEP
        return float(samples.max())


def cut(audio, packet, **rule):
    """(start in samples, samples) of each utterance."""
    found = []

    def transcribe(samples, start_s):
        found.append((round(start_s * RATE_HZ), samples.copy()))
        return Segment((Word("x", start_s, start_s + 1, 1.0),))

    live = SpokenUtterances(transcribe, Script(), EndRule(**rule))
    ended = [s for at in range(0, len(audio), packet) for s in live.feed(audio[at : at + packet])]
    ended += live.finish()
    assert [round(s.start * RATE_HZ) for s in ended] == [start for start, _ in found] and live.finish() == []
    return found


def steps(*parts):
    """Audio of (number of steps, value)."""
    return np.concatenate([np.full(n * STEP, value, np.float32) for n, value in parts])


@pytest.mark.parametrize("packet", [1000, 512, 160, 10**6])
def test_utterances_are_the_speech_with_a_margin_whatever_the_packets(packet):
    audio = steps((40, 0), (20, 0.9), (30, 0), (5, 0.8), (60, 0))
    found = cut(audio, packet, pause_s=20 * STEP / RATE_HZ)
    first, second = 40 * STEP, 90 * STEP
    assert [start for start, _ in found] == [first - MARGIN, second - MARGIN]
    assert [start + len(samples) for start, samples in found] == [60 * STEP + MARGIN, 95 * STEP + MARGIN]
    for start, samples in found:
        np.testing.assert_array_equal(samples, audio[start : start + len(samples)])


def test_a_short_pause_and_unsure_steps_end_nothing():
    audio = steps((40, 0), (5, 0.9), (19, 0), (5, 0.9), (30, 0.4), (5, 0.9), (60, 0))
    assert len(cut(audio, 512, pause_s=20 * STEP / RATE_HZ)) == 1
    assert len(cut(steps((40, 0.4)), 512)) == 0  # unsure is no beginning
    assert len(cut(audio, 512, pause_s=18 * STEP / RATE_HZ)) == 2


@pytest.mark.parametrize(("start", "goes_on", "found"), [(0.5, 0.375, 1), (0.5, 0.374, 2), (0.49, 0.9, 1)])
def test_speech_starts_and_goes_on_at_sileros_own_probabilities(start, goes_on, found, monkeypatch):
    """The last with speech behind what is too unsure to start it. 0.375 is a number that f32 has, 0.35 is none."""
    assert (vad.STARTS, vad.ENDS) == (0.5, 0.35)
    monkeypatch.setattr(vad, "ENDS", 0.375)
    audio = steps((40, 0), (3, start), (30, goes_on), (3, 0.9), (30, 0))
    regions = cut(audio, 512, pause_s=20 * STEP / RATE_HZ)
    assert len(regions) == found and regions[0][0] == (40 if start == 0.5 else 43) * STEP - MARGIN


def test_an_utterance_that_is_too_long_is_cut_where_it_is_long_enough():
    found = cut(steps((40, 0.9)), 512, longest_s=10 * STEP / RATE_HZ)
    assert [(start, len(samples)) for start, samples in found] == [(10 * i * STEP, 10 * STEP) for i in range(4)]


class FakeSilero:
    """Stands for the network: notes what it is fed."""

    def __init__(self, path, options, providers):
        assert path.endswith("silero_vad_16k_op15.onnx") and providers == ["CPUExecutionProvider"]
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
        self.fed = []

    def run(self, names, feeds):
        self.fed.append(feeds)
        return [[[0.25 * len(self.fed)]], feeds["state"] + 1]


def test_the_network_is_fed_each_step_behind_the_end_of_the_one_before(monkeypatch, tmp_path):
    import onnxruntime

    (tmp_path / "silero_vad" / "data").mkdir(parents=True)
    (tmp_path / "silero_vad" / "data" / "silero_vad_16k_op15.onnx").write_text("")
    monkeypatch.setattr(vad, "find_spec", {"silero_vad": SimpleNamespace(origin=tmp_path / "silero_vad" / "__init__.py")}.get)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSilero)
    detector, samples = SileroVad(), np.arange(3 * STEP, dtype=np.float32)
    assert [detector.score(part) for part in np.split(samples, 3)] == [0.25, 0.5, 0.75]
    for number, feeds in enumerate(detector._session.fed):
        before = samples[number * STEP - 64 : number * STEP] if number else np.zeros(64, np.float32)
        assert feeds["input"].tolist() == [[*before, *samples[number * STEP : (number + 1) * STEP]]]
        assert feeds["state"].shape == (2, 1, 128) and (feeds["state"] == number).all()
        assert (feeds["sr"].tolist(), feeds["sr"].dtype) == (RATE_HZ, np.int64)


def test_a_model_of_another_rate_has_no_detector():
    with pytest.raises(UsageError, match="cannot take this model's audio") as error:
        vad.silero_vad(8000)
    assert (error.value.expected, error.value.found) == ("16000 Hz", "8000 Hz")


def test_speech_at_both_ends_is_kept():
    audio = np.append(steps((7, 0.9)), np.full(100, 0.9, np.float32))
    ((start, samples),) = cut(audio, 160)
    assert start == 0 and len(samples) == len(audio)


def test_a_long_utterance_is_cut_and_loses_nothing():
    audio = steps((100, 0.9), (60, 0))
    found = cut(audio, 512, pause_s=20 * STEP / RATE_HZ, longest_s=30 * STEP / RATE_HZ)
    assert [start for start, _ in found] == [0, 30 * STEP, 60 * STEP, 90 * STEP]
    assert sum(len(samples) for _, samples in found) == 100 * STEP + MARGIN


def test_silence_is_not_held():
    live = SpokenUtterances(lambda samples, start_s: None, Script(), EndRule())
    for _ in range(1000):
        live.feed(np.zeros(1600, np.float32))
    assert len(live._held) <= MARGIN + 2 * STEP


def test_what_is_no_audio_is_refused():
    live = SpokenUtterances(lambda samples, start_s: None, Script(), EndRule())
    with pytest.raises(AudioError):
        live.feed(np.full(512, np.nan, np.float32))


def test_other_rates_and_a_missing_detector_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="Silero VAD cannot take"):
        vad.silero_vad(8000)
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"(?s)detector of speech.*pip install --no-deps silero-vad"):
        vad.silero_vad(16000)
    monkeypatch.setattr(vad, "find_spec", lambda name: SimpleNamespace(origin="/nowhere/__init__.py"))
    with pytest.raises(UsageError, match="silero_vad_16k_op15.onnx"):
        vad.silero_vad(16000)


def test_an_offline_model_serves_a_live_session(tmp_path):
    """Real speech between pauses of faint noise, by the real detector: the words of each utterance alone."""
    pytest.importorskip("silero_vad")
    checkpoint = read_checkpoint(str(ROOT / "reference" / "checkpoints" / "offline-tdt.nemo"))
    export_checkpoint(checkpoint, tmp_path)
    recognizer = Recognizer.open(tmp_path / "fp32")
    utterances = read_corpus(ROOT / "reference" / "audio" / "eval-tdt.jsonl", RATE_HZ).utterances[:4]
    rng, parts, starts = np.random.default_rng(0), [], []
    for utterance in utterances:
        starts.append(sum(map(len, parts)) / RATE_HZ)
        parts += [utterance.samples(), (rng.normal(size=2 * RATE_HZ) * 1e-3).astype(np.float32)]
    audio, live, ended = np.concatenate(parts), recognizer.utterances(EndRule(0.8)), []
    for at in range(0, len(audio), 1600):
        ended += live.feed(audio[at : at + 1600])
    assert len(ended) == len(utterances) and live.finish() == []
    for segment, start, utterance in zip(ended, starts, utterances, strict=True):
        assert start - MARGIN_S <= segment.start < segment.end <= start + utterance.seconds + 0.5
    alone = [h.text for h in recognizer.transcribe([(u.id, u.samples()) for u in utterances])]
    same = [segment.text == text for segment, text in zip(ended, alone, strict=True)]
    assert sum(same) >= 2  # an offline model normalises over what it is given, so that a word may differ


def test_the_real_detector_tells_speech_from_noise():
    pytest.importorskip("silero_vad")
    detector, rng = SileroVad(), np.random.default_rng(0)
    noise = [detector.score((rng.normal(size=STEP) * 0.01).astype(np.float32)) for _ in range(60)]
    utterance = read_corpus(ROOT / "reference" / "audio" / "eval-tdt.jsonl", RATE_HZ).utterances[0].samples()
    speech = [detector.score(utterance[at : at + STEP]) for at in range(0, len(utterance) - STEP, STEP)]
    assert max(noise) < 0.35 and sum(p > 0.5 for p in speech) > len(speech) / 3
