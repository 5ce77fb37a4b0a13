"""Data sets of the Hub's format, here a small folder laid out as FLEURS is: read by the same code as the real one."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemoport.audio import read_audio
from nemoport.cli import main
from nemoport.errors import CorpusError, UsageError
from nemoport.evaluation.sources import stream_data
from nemoport.prompt import PromptSpec
from nemoport.spec import ModelSpec
from nemoport.speech import dataset
from nemoport.speech.corpus import check_each_once, prompts, read_corpus
from nemoport.speech.dataset import Part, dataset_manifest

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
LANGUAGES = {"en_us": 5, "ja_jp": 3, "es_419": 2}


@pytest.fixture(scope="module")
def spec(reference_checkpoint):
    known = {"en-US": 0, "ja": 10, "ja-JP": 10, "es-US": 3, "auto": 101}
    return ModelSpec(**{**vars(reference_checkpoint.spec), "prompt": PromptSpec(128, known)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Configurations of parquet files with FLEURS' columns, audio inside them."""
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    root, clips = tmp_path_factory.mktemp("fleurs"), sorted((AUDIO / "eval").glob("*.flac"))
    card = ["---", "configs:"]
    for language, count in LANGUAGES.items():
        (root / language).mkdir()
        rows = []
        for i in range(count):
            samples, rate = soundfile.read(clips[len(rows) + 2 * len(card)])
            wav = io.BytesIO()
            soundfile.write(wav, samples, rate, format="WAV")
            rows.append(
                {
                    "id": i, "num_samples": len(samples), "path": f"{i}.wav",
                    "audio": {"bytes": wav.getvalue(), "path": f"{i}.wav"},
                    "transcription": f"{language} {i}", "raw_transcription": f"{language.upper()}, {i}!",
                    "gender": 0, "lang_id": 0, "language": language, "lang_group_id": 0,
                }
            )  # fmt: skip
        parquet.write_table(pa.Table.from_pylist(rows), root / language / "test-00000-of-00001.parquet")
        card += [f"- config_name: {language}", "  data_files:", "  - split: test", f"    path: {language}/test-*"]
    (root / "README.md").write_text("\n".join([*card, "---", ""]))
    return str(root)


def test_becomes_a_corpus(folder, spec, tmp_path):
    path = dataset_manifest(folder, [*LANGUAGES], tmp_path, spec)
    corpus = read_corpus(path, 16000)
    assert [u.language for u in corpus.utterances] == ["en-US"] * 5 + ["ja-JP"] * 3 + ["es-US"] * 2
    assert [u.text for u in corpus.utterances][:2] == ["en_us 0", "en_us 1"]
    assert prompts(corpus, spec) == [0] * 5 + [10] * 3 + [3] * 2
    assert all(u.seconds > 0.5 for u in corpus.utterances)


def columns(folder, rows):
    """A data set of one configuration, `en`. rows: the columns of each."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "en").mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), folder / "en" / "test-00000-of-00001.parquet")
    card = ["---", "configs:", "- config_name: en", "  data_files:", "  - split: test", "    path: en/test-*", "---", ""]
    (folder / "README.md").write_text("\n".join(card))
    return str(folder)


def wav(samples, rate_hz):
    content = io.BytesIO()
    soundfile.write(content, samples, rate_hz, format="WAV")
    return {"bytes": content.getvalue(), "path": "a.wav"}


def test_segments_are_cut_as_those_of_a_manifest(reference_checkpoint, tmp_path):
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 3 * 44100))
    long, other = (wav(one, 44100) for one in samples)
    cuts = [(long, 0.0, 1.0), (long, 1.0, None), (other, 0.25, 0.5)]
    rows = [{"audio": one, "offset": offset, "duration": length, "transcript": "x\u2028y"} for one, offset, length in cuts]
    path = dataset_manifest(columns(tmp_path / "d", rows), ["en"], tmp_path, reference_checkpoint.spec)
    found = read_corpus(path, 16000).utterances
    assert [u.seconds for u in found] == [1.0, 2.0, 0.5] and {u.text for u in found} == {"x\u2028y"}
    assert len({u.path for u in found}) == len(list((path.parent / "en").glob("*.wav"))) == 2  # each recording is kept once
    whole = read_audio(found[0].path, 16000)
    assert np.abs(found[0].samples()[:15000] - whole[:15000]).max() < 1e-3


def test_a_duration_alone_is_that_of_the_recording(reference_checkpoint, tmp_path):
    rows = [{"audio": wav(np.full(rate_hz, 0.1), rate_hz), "duration": 0.9, "text": text} for rate_hz, text in RATES]
    path = dataset_manifest(columns(tmp_path / "d", rows), ["en"], tmp_path, reference_checkpoint.spec)
    found = read_corpus(path, 16000).utterances
    assert [(u.seconds, u.text) for u in found] == [(1.0, text or "") for _, text in RATES]


def test_the_first_column_of_text_that_is_there_is_the_transcript(reference_checkpoint, tmp_path):
    names = ("transcription", "raw_transcription", "text", "sentence", "transcript", "normalized_text", "raw_text")
    assert names == dataset.TEXT_COLUMNS
    for first in (0, 1, 6):
        row = {"audio": wav(np.full(16000, 0.1), 16000)} | {name: name for name in names[: first - 1 if first else None : -1]}
        folder = tmp_path / f"{first}"
        (line,) = dataset_manifest(columns(folder, [row]), ["en"], folder, reference_checkpoint.spec).read_text().splitlines()
        assert json.loads(line)["text"] == names[first]


RATES = [(8000, "a"), (16000, None), (44100, ""), (48000, "b")]


@pytest.mark.parametrize(("offset", "named"), [("1.5", "offset is not a number of seconds: '1.5'"), (b"x", "offset is not")])
def test_an_offset_that_is_no_number_is_refused(reference_checkpoint, tmp_path, offset, named):
    rows = [{"audio": wav(np.full(16000, 0.1), 16000), "offset": offset, "text": ""}]
    path = dataset_manifest(columns(tmp_path / "d", rows), ["en"], tmp_path, reference_checkpoint.spec)
    with pytest.raises(CorpusError, match=named):
        read_corpus(path, 16000)


def test_nothing_is_fetched_twice(folder, spec, tmp_path, monkeypatch):
    """A run that was stopped goes on with the languages that are missing."""
    first = dataset_manifest(folder, ["en_us"], tmp_path, spec)
    fetched, fetch = [], dataset._fetch
    monkeypatch.setattr(dataset, "_fetch", lambda name, language, *rest: (fetched.append(language), fetch(name, language, *rest)))
    dataset_manifest(folder, ["en_us", "ja_jp"], tmp_path, spec)
    assert fetched == ["ja_jp"] and first.is_file()


def test_shards_part_the_whole(folder, spec, tmp_path):
    def transcribed(part):
        path = dataset_manifest(folder, ["en_us", "ja_jp"], tmp_path, spec, part=part)
        return [json.loads(line)["audio_filepath"] for line in path.read_text().splitlines()]

    shards = [transcribed(Part.parse(None, f"{i}/2")) for i in (1, 2)]
    assert len(shards[0]) == 5 and len(shards[1]) == 3
    assert sorted(shards[0] + shards[1]) == sorted(transcribed(None))
    assert len(transcribed(Part.parse(2, None))) == 4


def test_a_data_set_of_the_hub_is_streamed_and_its_files_go_when_they_are_done(reference_checkpoint, tmp_path, monkeypatch):
    rows = [{"audio": wav(np.full(8000 * n, 0.1), 16000), "text": f"row {n}"} for n in (1, 2, 3)]
    monkeypatch.chdir(tmp_path)
    data = stream_data(columns(tmp_path / "d", rows), ["en"], Path("spool"), reference_checkpoint.spec, limit=2)
    held = []
    for item in data.items():
        held.append((item.id, item.text, soundfile.info(item.path).frames))
        assert len(list((tmp_path / "spool").iterdir())) == 1 and Path(item.path).is_absolute()
        data.release(item)
    assert held == [("en/00000000", "row 1", 8000), ("en/00000001", "row 2", 16000)] and data.count is None
    with pytest.raises(UsageError):
        stream_data("d", ["../x"], tmp_path, reference_checkpoint.spec)


def test_models_without_a_prompt_take_any(folder, reference_checkpoint, tmp_path):
    path = dataset_manifest(folder, ["ja_jp"], tmp_path, reference_checkpoint.spec)
    assert {u.language for u in read_corpus(path, 16000).utterances} == {"ja_jp"}


def test_what_is_not_there_is_refused(folder, spec, tmp_path):
    with pytest.raises(UsageError, match="no language 'xx_yy'"):
        dataset_manifest(folder, ["xx_yy"], tmp_path, spec)
    with pytest.raises(CorpusError, match="cannot be read"):
        dataset_manifest(folder, ["en_us"], tmp_path, spec, split="dev")
    with pytest.raises(CorpusError, match="cannot be read"):
        dataset_manifest(str(tmp_path / "nothing"), ["en_us"], tmp_path, spec)
    with pytest.raises(UsageError, match="No language"):
        dataset_manifest(folder, [], tmp_path, spec)
    assert not list(tmp_path.rglob("manifest.jsonl"))


@pytest.mark.parametrize("limit, shard", [(None, "0/2"), (None, "3/2"), (None, "x"), (0, None)])
def test_bad_parts_are_refused(limit, shard):
    with pytest.raises(UsageError):
        Part.parse(limit, shard)


def test_scripts_are_read_from_the_converted_branch(monkeypatch):
    """`datasets` 4 refuses loading scripts, which FLEURS has; the Hub keeps a converted copy of such."""
    pytest.importorskip("datasets")
    import datasets

    asked = []

    def load(name, config, *, split, revision, streaming):
        asked.append(revision)
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found fleurs.py")
        return "rows"

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert dataset._open("google/fleurs", "en_us", "test", None) == "rows"
    assert asked == [None, dataset.PARQUET]
    with pytest.raises(RuntimeError):
        monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no network")))
        dataset._open("google/fleurs", "en_us", "test", None)


def test_command_line_wants_one_of_the_two(capsys, tmp_path):
    checkpoint = str(AUDIO.parent / "checkpoints" / "streaming-en.nemo")
    assert main(["validate", "--checkpoint", checkpoint, "--build", str(tmp_path)]) == 2
    assert "either --corpus or --dataset" in capsys.readouterr().err


def test_a_recording_counts_once(tmp_path):
    """By its samples, whatever its name is; another prompt makes it another utterance."""
    samples = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 10
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, samples, 16000)

    def corpus(*languages):
        rows = [{"audio_filepath": f"{name}.wav", "text": "", "lang": one} for name, one in zip("ab", languages, strict=True)]
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return read_corpus(tmp_path / "m.jsonl", 16000)

    check_each_once(corpus("de-DE", "auto"))
    with pytest.raises(CorpusError, match=r"lists a recording twice[\s\S]*a\.wav = b\.wav"):
        check_each_once(corpus("de-DE", "de-DE"))


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "", "a\0b", "-x", "x" * 200])
def test_a_language_that_leaves_its_folder_is_refused_before_anything_is_read(folder, spec, tmp_path, monkeypatch, name):
    monkeypatch.setattr(dataset, "_fetch", lambda *_: pytest.fail("read"))
    with pytest.raises(UsageError, match="no configuration"):
        dataset_manifest(str(folder), [name], tmp_path / "out", spec, "test", Part())
    assert not (tmp_path / "out").exists()
