"""Manifests are read as NeMo reads them: the same rows, the same samples; what is not supported is refused by its name."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from nemoport import wav
from nemoport.audio import read_audio
from nemoport.errors import AudioError, CorpusError
from nemoport.speech.corpus import Utterance, read_corpus
from nemoport.speech.manifest import read_rows
from nemoport.validate import probe
from nemoport.validate.nemo_process import corpus_rows
from nemoport.validate.probe import StreamCost

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
SPEECH = "eval/000.flac"
RATE = 16000


def nemos(path, offset_s, duration_s, rate_hz=RATE):
    pytest.importorskip("nemo")
    from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

    segment = AudioSegment.from_file(
        str(path), target_sr=rate_hz, offset=offset_s, duration=duration_s, channel_selector="average"
    )
    return segment.samples


def nemos_rows(path):
    pytest.importorskip("nemo")
    from nemo.collections.common.parts.preprocessing.manifest import item_iter

    return list(item_iter(str(path)))


def written(folder, *rows, name="m.jsonl"):
    """A manifest of rows, each a dict or a line."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def spoken(tmp_path):
    """A folder with a recording of 3 s in it, a.wav."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 3 * RATE), RATE)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "rate_hz", "options"),
    [
        ("a.wav", 16000, {}),
        ("a.flac", 44100, {}),
        ("a.ogg", 22050, {"subtype": "VORBIS"}),
        ("a.opus", 48000, {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", 44100, {}),
        ("a.wav", 8000, {"subtype": "ULAW"}),
    ],
    ids=str,
)
def test_segments_equal_nemos_to_the_sample(tmp_path, name, rate_hz, options):
    speech, _ = soundfile.read(AUDIO / SPEECH, always_2d=True)
    soundfile.write(tmp_path / name, np.concatenate([speech, speech[::-1] / 2], axis=1), rate_hz, **options)
    seconds = soundfile.info(tmp_path / name).duration
    cuts = [
        (0, 0),
        (0.1, 0),
        (0.1, 0.2),
        (0, 0.12345),
        (1 / 3, 0.1),
        (0.29, 0.29),
        (0.2, 1e6),
        (0.2, 1e300),
        (-1.0, -1.0),
        (0.2, -1),
    ]
    cuts += [(seconds - 0.02, 1.0)] + [(0.1 + i / rate_hz, 0.1 + i / rate_hz) for i in range(5)]
    for offset_s, duration_s in cuts:
        ours = read_audio(tmp_path / name, RATE, offset_s=offset_s, duration_s=duration_s)
        assert np.array_equal(ours, nemos(tmp_path / name, offset_s, duration_s)), (offset_s, duration_s)


def test_committed_speech_in_segments_equals_nemos(tmp_path):
    rows = [json.loads(line) for line in (AUDIO / "eval.jsonl").read_text().split("\n")[:6]]
    rows = [{**row, "audio_filepath": str(AUDIO / row["audio_filepath"]), "offset": 0.1 * i} for i, row in enumerate(rows)]
    corpus = read_corpus(written(tmp_path, *rows), RATE)
    items = nemos_rows(corpus.path)
    assert [u.text for u in corpus.utterances] == [item["text"] for item in items]
    for utterance, item in zip(corpus.utterances, items, strict=True):
        theirs = nemos(item["audio_file"], item["offset"], item["duration"])
        assert np.array_equal(utterance.samples(), theirs) and utterance.seconds == len(theirs) / RATE


@pytest.mark.parametrize("name", ["eval", "calibration", "eval-tdt", "calibration-tdt", "eval-multi", "calibration-multi"])
def test_durations_of_the_committed_sets_cut_no_sample(name):
    for row in read_rows(AUDIO / f"{name}.jsonl"):
        info = soundfile.info(row.path)
        assert row.duration_s > 0 and int(row.duration_s * info.samplerate) >= info.frames


def test_formats_that_cannot_seek_are_read_up_to_the_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(wav, "SKIPPED", 1000)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 16000), 8000, subtype="GSM610")
    whole = read_audio(tmp_path / "a.wav", 8000)
    assert np.array_equal(read_audio(tmp_path / "a.wav", 8000, offset_s=0.5, duration_s=0.25), whole[4000:6000])


@pytest.mark.parametrize(
    ("offset_s", "duration_s", "named"),
    [(3.01, 0.0, "begins after its end"), (1e308, 1e308, "begins after its end"), (3.0, 0.0, "is empty"), (1, 1e-5, "is empty")],
)
def test_segments_without_audio_are_refused(spoken, offset_s, duration_s, named):
    with pytest.raises(AudioError, match=named):
        read_audio(spoken / "a.wav", RATE, offset_s=offset_s, duration_s=duration_s)


def test_rows_of_one_file_have_names_of_their_own(spoken):
    cuts = [(None, None), (0, 1.0), (1.0, 0.5), (1.0, 0.25), (1.0, 0.5), (1.0001, 0.5)]
    rows = [{"audio_filepath": "a.wav", "offset": offset, "duration": duration} for offset, duration in cuts]
    corpus = read_corpus(written(spoken, *rows), RATE)
    names = [u.id for u in corpus.utterances]
    assert names[0] == "a.wav" and "a.wav, 1.000-1.500 s" in names and len(set(names)) == len(rows)
    assert [u.seconds for u in corpus.utterances] == [3.0, 1.0, 0.5, 0.25, 0.5, 0.5]
    assert len({u.sha256 for u in corpus.utterances}) == 5  # the one that is listed twice


def test_whole_files_keep_the_digest_that_builds_were_made_with(spoken):
    rows = [{"audio_filepath": "a.wav", "text": "x"}, {"audio_filepath": "a.wav", "text": "x", "offset": 0, "duration": 3.0}]
    ours, same = (read_corpus(written(spoken, row), RATE).digest for row in rows)
    assert ours == same
    assert ours != read_corpus(written(spoken, {**rows[1], "duration": 2.9}), RATE).digest


SAME_ROW = {
    "as it is": '{"audio_filepath": "a.wav", "duration": 1.5, "text": "x"}',
    "audio_filename": '{"audio_filename": "a.wav", "audio_filepath": "gone.wav", "duration": 1.5, "text": "x"}',
    "audio_file": '{"audio_file": "a.wav", "duration": 1.5, "text": "x"}',
    "normalized_text": '{"audio_filepath": "a.wav", "duration": 1.5, "normalized_text": "x"}',
    "text first": '{"audio_filepath": "a.wav", "duration": 1.5, "text": "x", "normalized_text": "y", "text_filepath": "t"}',
    "negative offset": '{"audio_filepath": "a.wav", "duration": 1.5, "text": "x", "offset": -2}',
    "keys of others": '{"audio_filepath": "a.wav", "duration": 1.5, "text": "x", "orig_sample_rate": 8000, "speaker": 3}',
    "white space": '  \u2003{"audio_filepath": "a.wav", "duration": 1.5, "text": "x"} \t',
}


@pytest.mark.parametrize("line", SAME_ROW.values(), ids=SAME_ROW)
def test_a_row_is_read_as_nemo_reads_it(spoken, line):
    path = written(spoken, line)
    (row,), (item,) = read_rows(path), nemos_rows(path)
    assert (row.path, row.text, row.offset_s, row.duration_s) == (spoken / "a.wav", "x", 0.0, 1.5)
    assert (Path(item["audio_file"]), item["text"], item["duration"]) == (row.path, row.text, row.duration_s)


@pytest.mark.parametrize("duration", [None, -1, 0, "missing"])
def test_a_duration_that_is_none_reaches_to_the_end(spoken, duration):
    row = {"audio_filepath": "a.wav", "offset": 1, "duration": duration}
    (utterance,) = read_corpus(written(spoken, {k: v for k, v in row.items() if v != "missing"}), RATE).utterances
    assert utterance.seconds == 2.0 and np.array_equal(utterance.samples(), nemos(spoken / "a.wav", 1, None))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n \r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\u00a0", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_lines_end_where_nemos_end(spoken, end, mark, inside):
    rows = [{"audio_filepath": "a.wav", "duration": 1, "text": f"{i}{inside}b"} for i in range(3)]
    lines = [json.dumps(row, ensure_ascii=inside < " ") for row in rows]
    (spoken / "m.jsonl").write_bytes((mark + end.join(lines) + end).encode())
    assert [row.text for row in read_rows(spoken / "m.jsonl")] == [row["text"] for row in rows]
    if not mark:  # NeMo cannot read one
        assert [item["text"] for item in nemos_rows(spoken / "m.jsonl")] == [row["text"] for row in rows]


def test_files_are_found_where_nemo_finds_them(spoken, tmp_path_factory, monkeypatch):
    home, here = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("here")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for folder in (home, here):
        soundfile.write(folder / "a.wav", np.full(RATE, 0.1), RATE)
    soundfile.write(here / "here.wav", np.full(RATE, 0.2), RATE)
    names = ["a.wav", "./a.wav", str(here / "a.wav"), "~/a.wav", "here.wav"]
    path = written(spoken, *({"audio_filepath": name, "duration": 1} for name in names))
    found = [row.path.resolve() for row in read_rows(path)]
    assert found == [spoken / "a.wav", spoken / "a.wav", here / "a.wav", home / "a.wav", here / "here.wav"]
    assert found == [Path(item["audio_file"]).resolve() for item in nemos_rows(path)]


def test_a_transcript_may_be_in_a_file(spoken, tmp_path_factory, monkeypatch):
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    (here / "t.txt").write_bytes(b"one\r\ntwo\n")
    (spoken / "only.txt").write_text("three")
    row = {"audio_filepath": "a.wav", "duration": 1, "text_filepath": "t.txt"}
    path = written(spoken, row)
    assert [r.text for r in read_rows(path)] == [item["text"] for item in nemos_rows(path)] == ["onetwo"]
    assert [r.text for r in read_rows(written(spoken, {**row, "text_filepath": "only.txt"}))] == ["three"]


def test_rows_marked_to_be_skipped_are(spoken):
    rows = [{"audio_filepath": "gone.wav", "_skipme": mark} for mark in (True, 1, "yes")]
    rows += [{"audio_filepath": "a.wav", "text": str(mark), "_skipme": mark} for mark in (False, 0, None, "")]
    assert [row.text for row in read_rows(written(spoken, *rows))] == ["False", "0", "None", ""]


def test_a_missing_text_is_empty_and_languages_are_kept(spoken):
    rows = [{"audio_filepath": "a.wav"}, {"audio_filepath": "a.wav", "text": None, "lang": "de", "target_lang": "auto"}]
    found = [(row.text, row.language, row.prompt_language) for row in read_rows(written(spoken, *rows))]
    assert found == [("", "", ""), ("", "de", "auto")]


REFUSED = {
    "no key": ({"text": "x"}, "no audio_filepath"),
    "not an object": ("[1]", r"a JSON object was expected, not \[1\]"),
    "not JSON": ("{'a': 1}", "JSONDecodeError"),
    "missing file": ({"audio_filepath": "gone.wav"}, "no file .*gone.wav"),
    "empty name": ({"audio_filepath": ""}, "no audio_filepath"),
    "a number": ({"audio_filepath": 3}, "no audio_filepath"),
    "several files": ({"audio_filepath": ["a.wav", "a.wav"]}, "several files, one a channel; mix them"),
    "video": ({"video_filepath": "a.mp4"}, "a video; extract its sound"),
    "data store": ({"audio_filepath": "s3://bucket/a.wav"}, "s3:.* is in a data store; fetch it"),
    "tarred": ({"audio_filepath": "x.wav", "shard_id": 0}, "x.wav is an entry of a tarred data set; unpack its shards"),
    "offset as text": ({"audio_filepath": "a.wav", "offset": "1.5"}, "offset is not a number of seconds: '1.5'"),
    "offset true": ({"audio_filepath": "a.wav", "offset": True}, "offset is not a number of seconds: True"),
    "duration NaN": ('{"audio_filepath": "a.wav", "duration": NaN}', "duration is not a number of seconds: nan"),
    "duration infinite": ('{"audio_filepath": "a.wav", "duration": 1e999}', "duration is not a number of seconds: inf"),
    "offset of 400 digits": (f'{{"audio_filepath": "a.wav", "offset": 1{"0" * 400}}}', "OverflowError"),
    "channel": ({"audio_filepath": "a.wav", "channel_selector": 1}, "channel_selector: channels are averaged"),
    "text a list": ({"audio_filepath": "a.wav", "text": ["x"]}, "text, lang or target_lang is not a string"),
    "no transcript": ({"audio_filepath": "a.wav", "text_filepath": "gone.txt"}, "text_filepath: no file gone.txt"),
    "odd transcript": ({"audio_filepath": "a.wav", "text_filepath": 3}, "TypeError"),
    "half a pair": ('{"audio_filepath": "a.wav", "text": "\\ud800"}', "UnicodeEncodeError"),
}


@pytest.mark.parametrize(("row", "named"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_by_its_line_and_name(spoken, row, named):
    with pytest.raises(CorpusError, match=f"line 2: {named}"):
        read_rows(written(spoken, {"audio_filepath": "a.wav"}, row))


def test_every_bad_line_is_counted(spoken):
    with pytest.raises(CorpusError, match=r"line 1: .*line 5: .*; and 2 more"):
        read_rows(written(spoken, *[{"audio_filepath": "gone.wav"}] * 7))
    with pytest.raises(CorpusError, match="no utterance"):
        read_rows(written(spoken, {"audio_filepath": "a.wav", "_skipme": True}))


def test_tarred_and_sharded_manifests_are_refused_by_what_they_are(spoken):
    row = {"audio_filepath": "x.wav", "duration": 1.0}
    with pytest.raises(CorpusError, match="tarred data set; unpack its shards"):
        read_rows(written(spoken, row, name="tarred_audio_manifest.json"))
    for name in ("manifest__OP_0..7_CL_.json", "manifest_{0..7}.json", "a.json,b.json"):
        with pytest.raises(CorpusError, match="a list or a pattern of several"):
            read_rows(spoken / name)
    (spoken / "utf16.jsonl").write_text(json.dumps(row), encoding="utf-16")
    for name in ("utf16.jsonl", "gone.jsonl", "."):
        with pytest.raises(CorpusError, match="cannot be read"):
            read_rows(spoken / name)


def test_segments_of_many_rows_cost_no_more_than_their_length(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.flac", np.zeros(600 * RATE, np.float32), RATE)
    sizes, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n=-1, **o: sizes.append(n) or read(self, n, **o))
    cuts = [{"audio_filepath": "long.flac", "offset": 5 * i, "duration": 2} for i in range(100)]
    assert read_corpus(written(tmp_path, *cuts), RATE).seconds == 200 and sizes == [2 * RATE] * 100


def test_the_cost_is_measured_on_the_segments_alone(spoken, monkeypatch):
    from nemoport.validate.gates import cost

    rows = [{"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.25}, {"audio_filepath": "a.wav"}]
    context = SimpleNamespace(
        corpus=read_corpus(written(spoken, *rows), RATE),
        folder=spoken,
        provider="cpu",
        threads=1,
        prompt_language="",
        variant="x",
    )
    commands = []
    monkeypatch.setattr(
        cost.subprocess,
        "run",
        lambda command, **_: (
            commands.append(command)
            or SimpleNamespace(returncode=0, stdout=json.dumps(dict.fromkeys((f.name for f in fields(StreamCost)), 0)))
        ),
    )
    cost.measure(context)
    assert commands[0][-6:] == [str(spoken / "a.wav"), "0.5", "1.25", str(spoken / "a.wav"), "0.0", "0.0"]
    streamed = []
    stream = SimpleNamespace(feed=streamed.append, finish=lambda: None, tokens=[], lookahead=0)
    recognizer = SimpleNamespace(sample_rate_hz=RATE, lookahead=0, stream=lambda: stream)
    monkeypatch.setattr(probe.Recognizer, "open", lambda *_, **__: recognizer)
    probe.main("x", "cpu", "1", "", *commands[0][-6:])
    wanted = [u.samples() for u in context.corpus.utterances]
    assert np.array_equal(np.concatenate(streamed), np.concatenate(wanted))


def test_nemos_process_is_given_the_segments(spoken):
    corpus = read_corpus(written(spoken, {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.25}), RATE)
    (row,) = json.loads(json.dumps(corpus_rows(corpus)))
    assert Utterance(**{**row, "path": Path(row["path"])}) == corpus.utterances[0]
    assert len(corpus.utterances[0].samples()) == 20_000
