"""`nemoport transcribe` and the API behind it: one bad file costs no other its text, and odd options are refused at once."""

import io
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from nemoport import cli
from nemoport.cli import main
from nemoport.errors import ArtifactError, UsageError
from nemoport.recognizer import Recognizer


@pytest.fixture(scope="module")
def good(eval_corpus):
    return [str(utterance.path) for utterance in eval_corpus.utterances[:2]]


def bad_files(folder):
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "short.wav", np.zeros(3), 16000)
    soundfile.write(folder / "loud.wav", np.full(16000, 100, np.float32), 16000, "FLOAT")
    return [str(folder / name) for name in ("text.wav", "short.wav", "loud.wav", "absent.wav")]


@pytest.mark.parametrize("streams", ["1", "3"])
def test_every_good_file_is_transcribed_and_each_bad_one_named(build, good, tmp_path, capsys, streams):
    bad = bad_files(tmp_path)
    assert main(["transcribe", str(build / "fp32"), *good]) == 0
    alone = sorted(capsys.readouterr().out.splitlines())
    order = [bad[0], good[0], *bad[1:], good[1]]
    assert main(["transcribe", str(build / "fp32"), *order, "--streams", streams]) == 2
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == alone
    assert all(name in printed.err for name in bad) and "4 of 6 files could not be read" in printed.err


def test_one_bad_file_alone(build, tmp_path, capsys):
    assert main(["transcribe", str(build / "fp32"), bad_files(tmp_path)[0]]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("nemoport: ") == 1


ODD = {
    "no stream": ["--streams", "0"],
    "fewer": ["--streams", "-1"],
    "threads": ["--threads", "-1"],
    "beam": ["--beam", "0"],
    "lookahead": ["--lookahead", "5"],
    "negative lookahead": ["--lookahead", "-1"],
    "flush": ["--flush", "never"],
    "passes of a streaming model": ["--pass-seconds", "100"],
    "a language of a model without": ["--language", "de-DE"],
    "a boost without hotwords": ["--hotword-boost", "2"],
    "hotwords that no token spells": ["--hotword", "Ω"],
    "provider": ["--provider", "none"],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("live", [False, True])
def test_an_odd_option_is_refused_before_audio_is_read(build, name, live, monkeypatch, capsys):
    if live and "stream" in ODD[name][0]:
        pytest.skip("a live stream is one")
    unread = io.BufferedReader(io.BytesIO(b"\0" * 32000))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(unread))
    assert main(["transcribe", str(build / "fp32"), "-" if live else "absent.wav", *ODD[name]]) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err and "absent" not in printed.err and not printed.out
    assert unread.tell() == 0


@pytest.mark.parametrize("options", [{"lookahead": 5}, {"threads": -1}, {"flush": "never"}, {"pass_s": 100.0}, {"beam": 0}])
def test_the_api_refuses_them_too(build, options):
    with pytest.raises(UsageError):
        Recognizer.open(build / "fp32", **options)


def test_a_build_in_place_of_a_variant(build, good, capsys):
    """A variant is chosen, and named."""
    assert main(["transcribe", str(build), good[0]]) == 0
    found = capsys.readouterr()
    assert found.err == "nemoport: variant fp32; --variant names another\n"
    assert main(["transcribe", str(build / "fp32"), good[0]]) == 0
    assert capsys.readouterr() == (found.out, "")
    assert main(["transcribe", "--quiet", str(build), good[0]]) == 0
    assert capsys.readouterr() == (found.out, "")


def test_several_variants_of_other_names(build, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(build / "fp32", tmp_path / name)
    shutil.copy(build / "config.json", tmp_path)
    with pytest.raises(ArtifactError, match=r"holds several variants[\s\S]*a, b"):
        Recognizer.open(tmp_path)


def test_a_stream_ends_once(build, good):
    recognizer = Recognizer.open(build / "fp32", threads=1)
    stream = recognizer.stream()
    stream.feed(np.zeros(16000, np.float32))
    stream.close()
    stream.finish()
    for more in (stream.finish, stream.close, lambda: stream.feed(np.zeros(160, np.float32))):
        with pytest.raises(UsageError, match="has ended"):
            more()


def test_how_far_a_long_recording_is_read_shows_on_a_terminal(build, good, tmp_path, monkeypatch, capsys):
    samples = np.tile(soundfile.read(good[0], dtype="float32")[0], 60)
    soundfile.write(tmp_path / "long.wav", samples, 16000, subtype="PCM_16")
    seconds = len(samples) / 16000
    reports = []

    @contextmanager
    def shown(quiet):
        yield reports.append

    monkeypatch.setattr(cli, "shown_progress", shown)
    monkeypatch.setattr("nemoport.cli.transcribe.is_terminal", lambda: True)
    assert main(["transcribe", str(build / "fp32"), str(tmp_path / "long.wav"), "--threads", "1"]) == 0
    text = capsys.readouterr().out
    done = [one.done for one in reports]
    assert len(done) > 1 and done == sorted(done) and 0 < done[0] < seconds and done[-1] == pytest.approx(seconds)
    assert {(one.name, one.unit) for one in reports} == {(str(tmp_path / "long.wav"), "s of audio")} and reports[-1].ended
    reports.clear()
    monkeypatch.setattr("nemoport.cli.transcribe.is_terminal", lambda: False)
    assert main(["transcribe", str(build / "fp32"), str(tmp_path / "long.wav"), "--threads", "1"]) == 0
    assert reports == [] and capsys.readouterr().out == text
