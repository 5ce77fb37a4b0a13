"""What keeps calibration and evaluation apart and what each corpus is read as: each thing alone, without a model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import samples
import soundfile

from nemoport.calibration import audio
from nemoport.calibration.audio import CalibrationAudio
from nemoport.errors import CorpusError
from nemoport.prompt import PromptSpec
from nemoport.spec import ModelSpec
from nemoport.speech import corpus as corpora
from nemoport.speech.corpus import Corpus, Utterance, prompts, read_corpus
from nemoport.speech.overlap import Fingerprint, Shared

RATE = 16000
PLAIN = Utterance("a", Path("a.wav"), "yes", 2.0, "0" * 64, RATE)
SPEC = ModelSpec.from_dict(samples.SPEC)


def noise(seed, seconds=0.05, rate_hz=RATE):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate_hz))


def manifest_of(folder, *rows, rates=None):
    """A manifest of rows; the recordings that they name are written down, each of another noise. rates: name -> Hz."""
    for seed, name in enumerate(dict.fromkeys(row["audio_filepath"] for row in rows)):
        rate_hz = (rates or {}).get(name, RATE)
        soundfile.write(folder / name, noise(seed, rate_hz=rate_hz), rate_hz, subtype="FLOAT")
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps({"text": "", **row}) + "\n" for row in rows))
    return path


def test_a_row_becomes_an_utterance(tmp_path):
    row = {"audio_filepath": "a.wav", "text": "yes", "lang": "en", "target_lang": "de", "offset": 0.01, "duration": 0.02}
    path = manifest_of(tmp_path, row, {"audio_filepath": "a.wav", "lang": "en"}, {"audio_filepath": "b.wav"})
    segment, whole, plain = read_corpus(path, RATE).utterances
    sha256 = segment.sha256
    wav = tmp_path / "a.wav"
    assert segment == Utterance("a.wav, 0.010-0.030 s", wav, "yes", 0.02, sha256, RATE, "en", "de", 0.01, 0.02)
    assert whole == Utterance("a.wav", wav, "", 0.05, whole.sha256, RATE, "en", "en", 0.0, 0.0)
    assert plain == Utterance("b.wav", tmp_path / "b.wav", "", 0.05, plain.sha256, RATE)
    assert (plain.language, plain.prompt_language, plain.offset_s, plain.duration_s) == ("", "", 0.0, 0.0)
    assert len({sha256, whole.sha256, plain.sha256}) == 3
    read = soundfile.read(wav, dtype="float32")[0]
    assert np.array_equal(whole.samples(), read) and np.array_equal(segment.samples(), read[160:480])
    assert read_corpus(path, 8000).utterances[1].samples().shape == (400,)


def test_a_folder_is_a_corpus_too(tmp_path):
    manifest_of(tmp_path, {"audio_filepath": "a.wav"})
    (tmp_path / "m.jsonl").unlink()
    (tmp_path / "a.txt").write_text("yes\n")
    found = read_corpus(tmp_path, RATE)
    assert found.path == tmp_path and [(u.path.name, u.text, u.seconds) for u in found.utterances] == [("a.wav", "yes", 0.05)]


def test_names_that_are_given_again_are_counted(tmp_path):
    path = manifest_of(tmp_path, *[{"audio_filepath": name} for name in ("a.wav", "b.wav", "a.wav", "a.wav")])
    assert [u.id for u in read_corpus(path, RATE).utterances] == ["a.wav", "b.wav", "a.wav (2)", "a.wav (3)"]


def test_a_corpus_is_as_long_as_its_utterances_and_has_their_digest():
    """File names do not matter; all else does, and the order."""
    other = replace(PLAIN, sha256="1" * 64, seconds=0.5)
    corpus = Corpus(Path("m"), (PLAIN, other))
    assert corpus.seconds == 2.5 and Corpus(Path(), ()).seconds == 0
    renamed = Corpus(Path("n"), (replace(PLAIN, id="b", path=Path("b.wav")), other))
    assert renamed.digest == corpus.digest
    changes = [{"sha256": "2" * 64}, {"text": "no"}, {"language": "de"}, {"prompt_language": "en"}]
    changed = [Corpus(Path("m"), (replace(PLAIN, **change), other)) for change in changes]
    assert len({one.digest for one in (corpus, *changed, Corpus(Path("m"), (other, PLAIN)), Corpus(Path("m"), (PLAIN,)))}) == 7


PROMPT = replace(SPEC, prompt=PromptSpec(4, {"en": 0, "de": 3}))


def spoken(*languages):
    return Corpus(Path("m"), tuple(replace(PLAIN, id=f"u{i}", prompt_language=one) for i, one in enumerate(languages)))


def test_prompts_are_the_slots_of_the_prompt_languages():
    assert prompts(spoken("de", "xx"), SPEC) == [None, None]
    assert prompts(spoken("de", "en", "DE"), PROMPT) == [3, 0, 3]


@pytest.mark.parametrize(("unknown", "more"), [(1, ""), (5, ""), (6, "; and 1 more"), (7, "; and 2 more")])
def test_five_languages_that_a_model_lacks_are_named_and_the_others_counted(unknown, more):
    with pytest.raises(CorpusError) as error:
        prompts(spoken("de", *["xx"] * unknown), PROMPT)
    assert error.value.found.count(": ") == min(unknown, 5) and error.value.found.startswith("u1: ")
    assert error.value.found.endswith(more) and ("more" in error.value.found) == bool(more)


def test_what_is_in_both_is_named_with_its_times(monkeypatch):
    """By samples under the names of both, by a part under the files with the times in them; what has the same samples is named
    once."""
    left = Corpus(Path("calibration"), (PLAIN, replace(PLAIN, id="b", path=Path("x/b.wav"), sha256="1" * 64, offset_s=10.0)))
    right = Corpus(Path("evaluation"), (replace(PLAIN, id="c"), replace(PLAIN, id="d", path=Path("y/d.wav"), sha256="2" * 64)))
    prints = {left: ["a", "b"], right: ["c", "d"]}
    monkeypatch.setattr(corpora, "_fingerprints", prints.get)
    found = [Shared(0, 0, (0.0, 1.0), (0.0, 1.0)), Shared(1, 1, (1.0, 2.5), (4.0, 5.5))]
    monkeypatch.setattr(corpora, "shared", lambda one, other: found if (one, other) == (prints[left], prints[right]) else None)
    with pytest.raises(CorpusError) as error:
        corpora.check_disjoint(left, right)
    assert error.value.found == "2 in both, such as a = c"
    assert corpora._shared(left, right) == ["b.wav 11.0-12.5 s = d.wav 4.0-5.5 s"]
    twice = [Shared(i, j, (0.0, 1.0), (0.0, 1.0)) for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
    monkeypatch.setattr(corpora, "shared", lambda one, other: twice)
    assert corpora._shared(left, left) == ["a.wav 0.0-1.0 s = b.wav 10.0-11.0 s"]


def test_fingerprints_are_of_the_samples_at_the_models_rate(monkeypatch):
    monkeypatch.setattr(Utterance, "samples", lambda u: u.id)
    monkeypatch.setattr(corpora, "fingerprint", lambda samples, rate_hz: Fingerprint((samples, rate_hz), None))
    assert [one.bits for one in corpora._fingerprints(spoken("", ""))] == [("u0", RATE), ("u1", RATE)]


def test_a_recording_counts_once_with_each_prompt():
    once = spoken("de", "en")
    corpora.check_each_once(once)
    with pytest.raises(CorpusError) as error:
        corpora.check_each_once(spoken("de", "en", "de", "de"))
    assert error.value.found == "2 again, such as u0 = u2"


# Calibration


def test_calibration_audio_is_read_and_checked_once(tmp_path, monkeypatch):
    path, lines, asked = manifest_of(tmp_path, *[{"audio_filepath": name} for name in ("a.wav", "b.wav", "a.wav")]), [], []
    monkeypatch.setattr(audio, "read_corpus", lambda *given: asked.append(given) or read_corpus(*given))
    given = CalibrationAudio(path)
    first = given.corpus("int8-static", RATE, lines.append)
    assert first.utterances == read_corpus(path, RATE).utterances
    assert given.corpus("kv-int8-static", RATE, lines.append) is first and asked == [(path, RATE)]
    assert lines == [f"{path} has audio twice, which counts twice: 1 pairs, such as a.wav = a.wav (2)"]


def test_without_a_manifest_the_variant_is_named():
    with pytest.raises(CorpusError, match="int8-static needs calibration audio"):
        CalibrationAudio(None).corpus("int8-static", RATE)


def test_recordings_below_the_models_rate_are_refused_and_those_above_are_not(tmp_path):
    rows = [{"audio_filepath": name} for name in ("a.wav", "b.wav", "c.wav", "d.wav")]
    path = manifest_of(tmp_path, *rows, rates={"b.wav": 15999, "c.wav": 8000, "d.wav": 44100})
    with pytest.raises(CorpusError) as error:
        CalibrationAudio(path).corpus("int8-static", RATE)
    assert error.value.found == "2 of less, such as b.wav with 15999 Hz" and "16000 Hz or more" in error.value.expected
    path = manifest_of(tmp_path, rows[0], rows[3], rates={"d.wav": 44100})
    assert len(CalibrationAudio(path).corpus("int8-static", RATE).utterances) == 2


def test_silence_is_refused_and_an_empty_recording_is_silent(tmp_path, monkeypatch):
    path = manifest_of(tmp_path, {"audio_filepath": "a.wav"})
    monkeypatch.setattr(Utterance, "samples", lambda u: np.zeros(0, np.float32))
    with pytest.raises(CorpusError, match="nothing above 0.001 of full scale in any of 1 recordings"):
        CalibrationAudio(path).corpus("int8-static", RATE)


def test_a_sample_at_the_limit_is_no_silence(tmp_path, monkeypatch):
    path = manifest_of(tmp_path, {"audio_filepath": "a.wav"})
    monkeypatch.setattr(Utterance, "samples", lambda u: np.full(2, audio.SILENT, np.float32))
    assert CalibrationAudio(path).corpus("int8-static", RATE)
