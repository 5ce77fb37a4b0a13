"""Evaluation at scale: data sets, shards, results that do not depend on who ran what, workers that end, merging."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nemoport.audio import read_audio
from nemoport.cli import main
from nemoport.errors import ArtifactError, CorpusError, ResourceError, UsageError
from nemoport.evaluation import results
from nemoport.evaluation.evaluate import Workers, evaluate, merge
from nemoport.evaluation.identity import Settings
from nemoport.evaluation.item import Item, ItemsDigest, Shard, numbered, position
from nemoport.evaluation.pool import Done, Ended, Pool, Ready
from nemoport.evaluation.results import HYPOTHESES, JOURNAL, Journal, exclusive, line_of, read_records, write_ordered
from nemoport.evaluation.sources import open_data
from nemoport.evaluation.transcriber import Opening, Transcriber
from nemoport.progress import silent
from nemoport.recognizer import Recognizer

SPEECH = Path(__file__).parent.parent / "reference" / "audio" / "eval"
IDS = [f"speaker {i % 7}/{i}.flac" for i in range(500)]
TIMES = {"work_seconds": 1.0, "processor_seconds": 0.5, "worker": "a/1", "instruction_set": "x"}


def record(id, **more):
    return Item(id, "", text="a b").known() | {"text": f"text of {id}", "languages": [], "audio_seconds": 2.0} | TIMES | more


def failed(id):
    return Item(id, "").known() | {"error": "bad"} | TIMES


def bytes_of(folder, *ids):
    """hypotheses.jsonl of a journal with these ids."""
    folder.mkdir(exist_ok=True)
    (folder / JOURNAL).write_bytes(b"".join(line_of(record(id)) for id in ids))
    write_ordered(folder)
    return (folder / HYPOTHESES).read_bytes()


# Ids and shards.


def test_shards_part_the_ids_and_their_order_is_that_of_the_whole():
    by_position = sorted(IDS, key=position)
    for count in (1, 2, 3, 8):
        shards = [[id for id in by_position if id in Shard(i, count)] for i in range(1, count + 1)]
        assert sum(shards, []) == by_position
        assert min(map(len, shards)) > 500 / count / 2


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "1/99999999"])
def test_shards_that_do_not_exist_are_refused(text):
    with pytest.raises(UsageError, match="shard"):
        Shard.parse(text)


def test_ids_that_come_again_are_numbered():
    ids = [item.id for item in numbered(Item(id, "") for id in ["a", "b", "a", "a (2)", "a"])]
    assert ids == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]


def test_the_digest_of_a_data_set_is_that_of_its_texts_in_any_order():
    def digest(*items):
        made = ItemsDigest()
        for item in items:
            made.add(item)
        return str(made), made.count

    one, other = Item("a", "/x/a", text="yes"), Item("b", "/x/b", offset_s=1.0)
    assert digest(one, other) == digest(other, replace(one, path="/elsewhere/a"))
    others = [replace(one, text="no"), replace(one, id="c"), replace(one, duration_s=1.0), replace(one, fields={"k": "v"})]
    assert len({digest(one), digest(one, one), *map(digest, others)}) == 6


# Data sets.


def test_a_manifest_keeps_short_fields_and_files_that_are_not_there(tmp_path):
    rows = [
        {"audio_filepath": "a.wav", "text": "x", "duration": 3, "lang": "de", "speaker": 7, "note": "n" * 101, "list": [1]},
        {"audio_filepath": "a.wav", "text": "", "offset": 1.5, "duration": 2, "target_lang": "auto", "lang": "de"},
        {"audio_filepath": "a.wav"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = open_data(path)
    first, second, third = data.items()
    assert data.count == 3 and data.description["count"] == 3
    assert (first.id, first.text, first.language, first.fields) == ("a.wav", "x", "de", {"speaker": "7"})
    assert (second.id, second.text, second.prompt_language) == ("a.wav, 1.500+2.000 s", "", "auto")
    assert (third.id, third.text) == ("a.wav (2)", None)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(CorpusError, match="line 4"):
        open_data(path)


def test_a_folder_has_its_texts_beside_the_audio(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "deep/a.flac", "c.wav"):
        (tmp_path / name).touch()
    (tmp_path / "b.txt").write_text("\ufefftwo\n words \n")
    (tmp_path / "deep" / "a.txt").write_text("")
    assert [(i.id, i.text) for i in open_data(tmp_path).items()] == [("b.wav", "two words"), ("c.wav", None), ("deep/a.flac", "")]
    (tmp_path / "c.txt").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match=r"c\.txt"):
        open_data(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no audio"):
        open_data(tmp_path / "empty")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_folder_as_the_hubs_audio_folders(tmp_path, name):
    (tmp_path / "train").mkdir()
    rows = [{"file_name": "x.wav", "transcription": "one, two", "speaker": "s"}, {"file_name": "y/z.wav", "language": "fr"}]
    if name.endswith("csv"):
        text = 'file_name,transcription,speaker,language\nx.wav,"one, two",s,\ny/z.wav,,,fr\n'
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train" / name).write_text(text)
    (tmp_path / "other.wav").touch()
    first, second = open_data(tmp_path).items()
    assert (first.id, first.text, first.fields["speaker"]) == ("train/x.wav", "one, two", "s")
    assert (second.path, second.language) == (str(tmp_path / "train" / "y" / "z.wav"), "fr")
    (tmp_path / "train" / name).write_text(text.replace("x.wav", "../../x.wav"))
    with pytest.raises(CorpusError, match="no file_name in the folder"):
        open_data(tmp_path)


# Results on disk.


def test_results_are_the_same_bytes_in_any_order_and_in_any_parts_of_memory(tmp_path, monkeypatch):
    whole = bytes_of(tmp_path / "a", *IDS)
    monkeypatch.setattr(results, "MOST_SORTED_BYTES", 20_000)  # eight parts
    shuffled = random.Random(0).sample(IDS, len(IDS))
    assert bytes_of(tmp_path / "b", *shuffled, *shuffled[:9]) == whole
    assert [one["id"] for one in read_records(tmp_path / "b" / HYPOTHESES)] == sorted(IDS, key=position)
    assert not any(key in whole.decode() for key in TIMES)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(
        [HYPOTHESES, JOURNAL, "times.jsonl", "summary.json"]
    )


@pytest.mark.parametrize("torn", [b'{"id": "c", "te', b'{"id": "c"}', b"\xc3"])
def test_a_line_that_a_killed_run_did_not_end_is_dropped(tmp_path, torn):
    journal = Journal(tmp_path)
    journal.add(record("a"))
    journal.add(failed("b"))
    journal.close()
    with open(tmp_path / JOURNAL, "ab") as stream:
        stream.write(torn)
    again = Journal(tmp_path)
    assert len(again.done) == 2
    again.add(record("c"))
    again.close()
    assert [one["id"] for one in read_records(tmp_path / JOURNAL)] == ["a", "b", "c"]
    retried = Journal(tmp_path, retry_failed=True)
    assert len(retried.done) == 2
    retried.add(record("b"))
    retried.close()
    assert write_ordered(tmp_path).failures == 0


@pytest.mark.parametrize("line", ["x", "[]", '{"id": 3, "text": ""}', '{"id": "a"}', '{"id": "a", "text": null}'])
def test_a_damaged_journal_is_refused_by_its_line(tmp_path, line):
    (tmp_path / JOURNAL).write_bytes(line_of(record("a")) + line.encode() + b"\n" + line_of(record("b")))
    with pytest.raises(ArtifactError, match="Line 2"):
        Journal(tmp_path)


def test_one_process_writes_results_at_a_time(tmp_path):
    with exclusive(tmp_path), pytest.raises(UsageError, match="Another process"), exclusive(tmp_path):
        pass


def test_the_summary_counts_what_was_transcribed(tmp_path):
    lines = [record(str(i), work_seconds=0.1 * i, worker=f"h/{i % 2}") for i in range(1, 101)]
    (tmp_path / JOURNAL).write_bytes(b"".join(map(line_of, [*lines, failed("x")])))
    write_ordered(tmp_path)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["utterances"], found["failed"], found["errors"], found["workers"]) == (101, 1, {"x": "bad"}, 2)
    assert found["audio_seconds"] == 200 and found["processor_seconds_per_hour"] == 900
    assert found["work_seconds"] == {"all": 505.0, "p50": 5.05, "p95": 9.505}
    assert found["real_time_factor"] == {"all": 2.525, "p50": 2.525, "p95": 4.7525}


# Workers.


class Fakes:
    """Workers without processes. They end at random, and with `poison` always."""

    pack = 3

    def __init__(self, seed=0, ends=0.0, poison=(), refused=()):
        self.random, self.ends, self.poison, self.refused = random.Random(seed), ends, poison, refused
        self.queues, self.started, self.begun = {}, 0, set()

    def start(self):
        self.started += 1
        worker = Fake(self, self.started)
        self.queues[worker] = []
        return worker

    def events(self):
        worker = self.random.choice(list(self.queues))
        if worker not in self.begun:
            self.begun.add(worker)
            error = UsageError("no audio here") if worker.number in self.refused else None
            event = Ended("refused", error) if error else Ready()
        elif not (queue := self.queues[worker]):
            return []
        elif self.random.random() < self.ends or any(item.id in self.poison for item in queue[0]):
            event = Ended("signal 9")
        else:
            event = Done([record(item.id) for item in queue.pop(0)])
        if isinstance(event, Ended):
            del self.queues[worker]
        return [(worker, event)]

    def close(self):
        pass


class Fake:
    def __init__(self, engine, number):
        self.engine, self.number = engine, number

    def give(self, pack):
        if self in self.engine.queues:
            self.engine.queues[self].append(list(pack))


def ran(engine, ids=IDS[:60], workers=3):
    return list(Pool(engine, workers, (Item(id, "") for id in ids), silent).run())


@pytest.mark.parametrize("seed", range(8))
def test_each_utterance_has_one_record_whichever_workers_end(seed):
    found = ran(Fakes(seed, ends=0.1))
    assert sorted(item.id for item, _ in found) == sorted(one["id"] for _, one in found) == sorted(IDS[:60])
    assert all(item.id == one["id"] for item, one in found)


def test_workers_may_end_often_where_others_go_on():
    engine = Fakes(ends=0.3)
    assert sorted(item.id for item, _ in ran(engine, IDS[:300])) == sorted(IDS[:300]) and engine.started > 30


def test_an_utterance_with_which_workers_end_fails_alone():
    found = ran(Fakes(1, poison={IDS[4], IDS[30]}))
    errors = {one["id"]: one["error"] for _, one in found if "error" in one}
    assert errors.keys() == {IDS[4], IDS[30]} and "3 times: signal 9" in errors[IDS[4]] and len(found) == 60


def test_workers_that_only_end_stop_the_run():
    with pytest.raises(ResourceError, match="one after another"):
        ran(Fakes(ends=1.0))


def test_a_worker_that_cannot_begin_is_left_out_but_not_all():
    assert len(ran(Fakes(refused={1, 2}))) == 60
    with pytest.raises(UsageError, match="no audio here"):
        ran(Fakes(refused={1, 2, 3}))
    engine = Fakes()
    assert ran(engine, []) == [] and engine.started == 0


# A whole run.


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, nemoport.cli.evaluate, nemoport.evaluation.evaluate, nemoport.evaluation.scoring\n"
        "print(*{'torch', 'nemo', 'ray', 'datasets', 'jiwer', 'onnxruntime', 'whisper_normalizer'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A manifest of eight short recordings, one file that is no audio, and one that is not there."""
    folder = tmp_path_factory.mktemp("speech")
    (folder / "bad.wav").write_bytes(b"not audio")
    rows = [{"audio_filepath": str(path), "text": path.stem, "lang": "en"} for path in sorted(SPEECH.glob("*.flac"))[:8]]
    rows[2] |= {"offset": 0.5, "duration": 1.0}
    rows += [{"audio_filepath": name, "text": "x", "lang": "en"} for name in ("bad.wav", "gone.wav")]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "m.jsonl"


@pytest.fixture(scope="module")
def variant(build):
    return str(build / "fp32")


def run(variant, speech, output, **more):
    evaluate(variant, lambda _: open_data(speech), output, **{"workers": Workers(count=1)} | more)
    return (output / HYPOTHESES).read_bytes()


@pytest.fixture(scope="module")
def whole(variant, speech, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "results"
    made = run(variant, speech, folder)
    errors = {one["id"]: one["error"] for one in read_records(folder / HYPOTHESES) if "error" in one}
    assert errors.keys() == {"bad.wav", "gone.wav"}, errors
    return folder, made


def test_texts_are_those_of_each_file_alone(variant, whole):
    recognizer = Recognizer.open(variant, threads=1)
    records = {one["id"]: one for one in read_records(whole[0] / HYPOTHESES)}
    assert len(records) == 10 and sum("error" in one for one in records.values()) == 2
    for id, one in records.items():
        if "error" in one:
            assert Path(id).name in one["error"] and one["reference"] == "x"
        elif ", 0.500+1.000 s" in id:
            segment = read_audio(id.partition(",")[0], recognizer.sample_rate_hz, offset_s=0.5, duration_s=1.0)
            (alone,) = recognizer.transcribe([("segment", segment)])
            assert (one["text"], one["audio_seconds"]) == (alone.text, 1.0)
        else:
            alone = recognizer.transcribe_file(id)
            assert (one["text"], one["audio_seconds"]) == (alone.text, alone.audio_seconds)


def test_two_workers_one_of_which_is_killed_write_the_same_bytes(variant, speech, whole, tmp_path):
    lines = []

    def progress(report):
        lines.append(str(report))
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout.split()
        if len(lines) == 2:
            os.kill(next(pid for pid in map(int, children) if b"spawn_main" in cmdline(pid)), signal.SIGKILL)

    assert run(variant, speech, tmp_path / "r", workers=Workers(count=2), progress=progress) == whole[1]
    assert any("signal 9" in line for line in lines)


def cmdline(pid):
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes() if path.exists() else b""


def test_a_killed_run_goes_on_and_does_nothing_twice(variant, speech, whole, tmp_path):
    arguments = ["evaluate", variant, str(speech), "--output", str(tmp_path / "r"), "--workers", "1"]
    process = subprocess.Popen([sys.executable, "-m", "nemoport.cli", *arguments], start_new_session=True)
    journal = tmp_path / "r" / JOURNAL
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    assert run(variant, speech, tmp_path / "r") == whole[1]
    assert journal.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert len([one["id"] for one in read_records(journal)]) == 10
    before = journal.stat().st_mtime_ns
    assert run(variant, speech, tmp_path / "r") == whole[1] and journal.stat().st_mtime_ns == before


def test_shards_merge_to_the_whole(variant, speech, whole, tmp_path):
    parts = [tmp_path / str(i) for i in (1, 2)]
    for number, part in enumerate(parts, 1):
        run(variant, speech, part, shard=Shard(number, 2))
    ids = [{one["id"] for one in read_records(part / HYPOTHESES)} for part in parts]
    assert not ids[0] & ids[1] and all(ids)
    merge(parts[::-1], tmp_path / "all")
    assert (tmp_path / "all" / HYPOTHESES).read_bytes() == whole[1]
    assert (tmp_path / "all" / "run.json").read_bytes() == (whole[0] / "run.json").read_bytes()
    with pytest.raises(UsageError, match="all shards"):
        merge(parts[:1], tmp_path / "one")
    with pytest.raises(UsageError, match="has results"):
        merge(parts, tmp_path / "all")
    third = tmp_path / "third"
    shutil.copytree(parts[0], third)
    merge([*parts, third], tmp_path / "twice")  # the same results again
    assert (tmp_path / "twice" / HYPOTHESES).read_bytes() == whole[1]
    (third / HYPOTHESES).write_text((third / HYPOTHESES).read_text().replace('"text": "', '"text": "um ', 1))
    with pytest.raises(UsageError, match="another result"):
        merge([*parts, third], tmp_path / "conflict")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("artifact", "digest", "0" * 64),
        ("options", "lookahead", 0),
        ("versions", "runtime", "onnxruntime 1.0"),
        ("data", "digest", "1" * 64),
    ],
)
def test_results_of_something_else_are_not_merged_nor_gone_on_with(variant, speech, whole, tmp_path, part, key, value):
    other = tmp_path / "other"
    other.mkdir()
    stated = json.loads((whole[0] / "run.json").read_text())
    stated[part][key] = value
    (other / "run.json").write_text(json.dumps(stated))
    with pytest.raises(UsageError, match=f"{part}.{key}"):
        merge([whole[0], other], tmp_path / "all")
    with pytest.raises(UsageError, match=f"{part}.{key}"):
        run(variant, speech, other)
    assert not (other / JOURNAL).exists()


def test_a_data_set_under_another_name_is_the_same(variant, speech, whole, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole[0], folder)
    renamed = speech.with_name("renamed.jsonl")
    shutil.copy(speech, renamed)
    assert run(variant, renamed, folder) == whole[1]


def test_results_that_are_not_complete_are_not_scored_nor_merged(whole, tmp_path):
    (tmp_path / "run.json").write_bytes((whole[0] / "run.json").read_bytes())
    Journal(tmp_path).close()
    with pytest.raises(ArtifactError, match="a run that was stopped"):
        merge([tmp_path], tmp_path / "all")
    assert main(["score", str(tmp_path)]) == 2


def test_another_artifact_on_a_worker_is_refused(variant, speech, tmp_path, monkeypatch):
    from nemoport.evaluation import evaluate as module

    opening = module._opening
    monkeypatch.setattr(module, "_opening", lambda *some: replace(opening(*some), artifact={"digest": "0"}))
    with pytest.raises(ArtifactError, match="something else"):
        run(variant, speech, tmp_path / "r")


def test_a_worker_refuses_a_damaged_artifact_and_a_machine_without_the_audio(build, variant, whole, tmp_path):
    stated = json.loads((whole[0] / "run.json").read_text())
    opening = Opening(variant, None, Settings(), stated["artifact"], stated["versions"], str(tmp_path / "gone.wav"))
    with pytest.raises(UsageError, match="does not have the audio"):
        Transcriber(opening)
    shutil.copytree(build, tmp_path / "build", ignore=shutil.ignore_patterns("longform", "conditions", "results"))
    with open(tmp_path / "build" / "fp32" / "decoder_model.onnx", "rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\xff")
    with pytest.raises(ArtifactError, match="damaged"):
        Transcriber(replace(opening, place=str(tmp_path / "build" / "fp32"), probe=None))


def test_options_are_resolved_in_what_is_stored(whole):
    stated = json.loads((whole[0] / "run.json").read_text())
    assert isinstance(stated["options"]["lookahead"], int) and stated["options"]["threads"] == 1
    assert stated["options"].keys() == vars(Settings()).keys()
    assert stated["shard"] == "1/1" and stated["versions"]["runtime"].startswith("onnxruntime ")


def test_the_command_line_names_what_failed_and_prints_scores(variant, speech, whole, tmp_path, capsys):
    arguments = ["evaluate", variant, str(speech), "--output", str(whole[0]), "--workers", "1", "--json", "--scorer", "cer"]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "2 of 10 utterances failed" in err and "gone.wav" in err
    found = json.loads(out)
    assert found["scorer"] == "cer" and found["failed"] == 2 and found["groups"]["language"]["en"] == found["overall"]
    assert main(["evaluate", variant, "--output", str(tmp_path / "r")]) == 2
