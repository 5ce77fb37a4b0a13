"""Streams of calibration audio, and a run of them that is kept: plan by plan and save by save, without a graph."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import samples

from nemoport.calibration import cache
from nemoport.calibration.cache import calibrate
from nemoport.calibration.ranges import RangeCollector
from nemoport.calibration.stream import CalibrationStreams, Segment, StreamParameters, StreamPlan
from nemoport.errors import ArtifactError, CorpusError
from nemoport.frontend import mel_filterbank
from nemoport.prompt import PromptSpec
from nemoport.spec import ModelSpec

SPEC, OFFLINE = ModelSpec.from_dict(samples.SPEC), ModelSpec.from_dict(samples.OFFLINE_SPEC)
PROMPT = replace(SPEC, prompt=PromptSpec(4, {"de": 1, "en": 2, "auto": 3}))
ONE = StreamParameters(contexts_per_stream=1.0)  # of 5.6 s
PAUSE = tuple(Segment(kind, samples=112_000) for kind in ("silence", "noise"))  # of 7 s


def streams(*seconds, spec=SPEC, parameters=ONE, languages=None):
    utterances = [
        SimpleNamespace(
            seconds=s, id=f"u{i}", language=language, prompt_language=language, sha256=f"{i}",
            samples=lambda i=i, s=s: np.random.default_rng(i).uniform(-0.3, 0.3, round(s * 16000)).astype(np.float32),
        )
        for i, (s, language) in enumerate(zip(seconds, languages or [""] * len(seconds), strict=True))
    ]  # fmt: skip
    corpus = SimpleNamespace(utterances=utterances, path="m.jsonl", digest="d" * 64)
    return CalibrationStreams(corpus, spec, mel_filterbank(spec.frontend), parameters)


def speech(*indices, kind="speech"):
    return tuple(Segment(kind, i) for i in indices)


def test_the_plans_of_a_small_corpus():
    """Two groups of at least a context, used again at the other lookaheads; each lookahead falls silent once; two of a phone."""
    made = streams(3, 3, 3, 3, 1)
    first, second = (0, 1), (2, 3, 4)
    assert made.plans == (
        *(StreamPlan(r, speech(*group)) for r, group in zip((13, 6, 1, 0), (first, second, first, second), strict=True)),
        *(
            StreamPlan(r, (*speech(a), *PAUSE, *speech(b)), True)
            for r, (a, b) in zip((13, 6, 1, 0), ((0, 1), (2, 3), (4, 0), (1, 2)), strict=True)
        ),
        StreamPlan(13, speech(*second, kind="telephone")),
        StreamPlan(6, speech(*first, kind="telephone")),
    )
    plain = streams(3, 3, 3, 3, 1, parameters=replace(ONE, telephone=False, silence_contexts=0.5))
    assert plain.plans[:4] == made.plans[:4] and len(plain.plans) == 8
    assert [s.samples for s in plain.plans[4].segments] == [0, 44_800, 44_800, 0]


def test_the_streams_of_an_artifact_are_those_of_its_front_end():
    made = streams(6.0)
    artifact = SimpleNamespace(spec=SPEC, filterbank=lambda: mel_filterbank(SPEC.frontend))
    found = CalibrationStreams.of(made.corpus, artifact, ONE)
    assert (found.corpus, found.spec, found.parameters, found.plans) == (made.corpus, SPEC, ONE, made.plans)
    assert [c.mel.tolist() for c in found.chunks(found.plans[0])] == [c.mel.tolist() for c in made.chunks(made.plans[0])]


def test_more_groups_than_lookaheads_are_each_one_stream():
    made = streams(*[6.0] * 5)
    assert [(p.lookahead, p.segments) for p in made.plans[:5]] == [(r, speech(i)) for i, r in enumerate((13, 6, 1, 0, 13))]
    assert [(p.lookahead, p.segments[0].utterance) for p in made.plans[9:]] == [(13, 4), (6, 3), (1, 2), (0, 1)]


def test_a_group_is_as_long_as_is_asked_for():
    assert [len(p.segments) for p in streams(5.61, 5.61).plans[:2]] == [1, 1]
    with pytest.raises(CorpusError, match="too short for calibration") as error:
        streams(2.0, 3.5)
    assert error.value.found == "5.5 s in 2 utterances" and error.value.expected.startswith("at least 5.6 s of speech, so")
    with pytest.raises(CorpusError) as error:
        streams(6.0, 5.0, spec=PROMPT, languages=("de", "en"))
    assert error.value.found == "5.0 s in 1 utterances" and "5.6 s of speech in en, so" in error.value.expected


def test_an_offline_encoder_has_one_stream_of_two_minutes():
    made = streams(*[8.0] * 20, spec=OFFLINE)
    assert made.plans[-1] == StreamPlan(None, speech(*range(15)))
    assert {p.lookahead for p in made.plans} == {None} and len(made.plans) == 20 + 1 + 1 + 1
    assert streams(*[8.0] * 3, spec=OFFLINE).plans[-1] == StreamPlan(None, speech(0, 1, 2))
    assert made.plans[20].segments[1].samples == int(1.25 * 7.5 * 16000)


def test_streams_of_a_model_with_a_prompt_are_of_one_language_each():
    """In turn by the language and by auto; a language with less audio is used again."""
    made = streams(*[6.0] * 5, spec=PROMPT, languages=("de", "en", "de", "de", "en"))
    assert [(p.segments, p.prompt) for p in made.plans[:6]] == [
        (speech(0), 1), (speech(1), 2), (speech(2), 3), (speech(4), 3), (speech(3), 1), (speech(1), 2),
    ]  # fmt: skip
    assert [p.prompt for p in made.plans[6:10]] == [1, 1, 2, 2]
    without = replace(PROMPT, prompt=PromptSpec(4, {"de": 1, "en": 2}))
    made = streams(*[6.0] * 4, spec=without, languages=("de", "en", "de", "en"))
    assert [p.prompt for p in made.plans[:4]] == [1, 2, 1, 2]
    asked = []
    session = SimpleNamespace(initial_state=lambda *given: asked.append(given))
    made.initial_state(session, made.plans[0])
    streams(6.0).initial_state(session, StreamPlan(6, ()))
    assert asked == [(1, [1]), (1, [])]


def test_segments_are_speech_of_the_corpus_silence_or_noise():
    made = streams(6.0)
    assert np.array_equal(made.samples(Segment("speech", 0)), made.corpus.utterances[0].samples())
    silence, noise = (made.samples(Segment(kind, samples=40_000)) for kind in ("silence", "noise"))
    assert silence.shape == noise.shape == (40_000,) and silence.dtype == noise.dtype == np.float32 and not silence.any()
    assert np.sqrt(np.square(noise).mean()) == pytest.approx(1e-3, rel=0.02)
    assert np.array_equal(noise, made.samples(Segment("noise", samples=40_000)))
    narrow = made.samples(Segment("telephone", 0))
    assert len(narrow) == 96_000 and not np.allclose(narrow, made.corpus.utterances[0].samples(), atol=0.01)


class Session:
    """Fills its caches by a chunk's frames; notes what it is fed."""

    def __init__(self):
        self.fed = []

    def initial_state(self, batch, prompts):
        return SimpleNamespace(length=np.array([0]))

    def encode(self, mel, lengths, state):
        self.fed.append((mel.shape, lengths.tolist(), int(state.length[0])))
        return None, None, SimpleNamespace(length=np.minimum(state.length + 7, 70))


@pytest.mark.parametrize(
    ("plan", "parameters", "first"),
    [
        (StreamPlan(6, speech(0)), ONE, 10),
        (StreamPlan(6, speech(0)), replace(ONE, min_cache_fill=0.5), 5),
        (StreamPlan(6, speech(0), collect_start=True), ONE, 0),
        (StreamPlan(6, speech(0)), replace(ONE, cold=True), 0),
    ],
)
def test_chunks_are_collected_once_the_caches_are_as_full_as_is_asked(plan, parameters, first):
    made, session = streams(12.0, parameters=parameters), Session()
    found = list(made.run(session, plan))
    assert found == [i >= first for i in range(len(found))] and len(found) > 15
    assert [filled for *_, filled in session.fed] == [0 if parameters.cold else min(7 * i, 70) for i in range(len(found))]
    assert session.fed[:2] == [((1, 128, 49), [49], 0), ((1, 128, 65), [65], 0 if parameters.cold else 7)]


@pytest.mark.parametrize("start", [False, True])
def test_a_batch_is_collected_from_the_chunk_on_at_which_all_caches_are_full(start):
    made, session = streams(12.0, 20.0), Together()
    batch = [StreamPlan(13, speech(i), collect_start=start) for i in (0, 1)]
    found = list(made.run_together(session, batch))
    assert found == [start or i >= 5 for i in range(len(found))]  # 5 chunks of 14 frames fill 70
    assert [rows for rows, _ in session.fed] == [2] * 10 + [1] * (len(found) - 10) and len(found) == 17
    assert session.fed[10] == (1, [70])  # the longer one goes on with its own caches


def test_streams_are_put_together_by_when_they_are_collected():
    made = streams(*[12.0] * 12)
    batches = made.together
    assert sum(map(len, batches)) == len(made.plans) > 12 and max(map(len, batches)) == 4
    assert all(len({plan.collect_start for plan in batch}) == 1 for batch in batches)
    assert [{plan.lookahead for plan in batch} for batch in batches][:5] == [{13}, {6}, {1}, {0}, {13}]
    offline = streams(8.0, 8.0, spec=OFFLINE)
    assert offline.together == [[plan] for plan in offline.plans]
    assert list(offline.run_together(Session(), offline.together[0])) == [True]


class Together(Session):
    """Notes how many streams are fed, and what their caches hold."""

    def initial_state(self, batch, prompts):
        return SimpleNamespace(length=np.zeros(batch, np.int64))

    def unstack(self, state):
        return list(state.length)

    def stack(self, states):
        return SimpleNamespace(length=np.array(states))

    def encode(self, mel, lengths, state):
        self.fed.append((len(mel), state.length.tolist()))
        return None, None, SimpleNamespace(length=np.minimum(state.length + 14, 70))


def test_an_offline_stream_is_one_recording_and_all_of_it_is_collected():
    made, session = streams(8.0, 8.0, spec=OFFLINE), Session()
    assert list(made.run(session, StreamPlan(None, speech(0, 1)))) == [True]
    ((shape, lengths, _),) = session.fed
    assert lengths == [1600] and shape[2] >= 1600


# Runs that are kept


class Kept:
    """A calibration whose streams give three chunks each: the first is not collected, the others hold the stream's number."""

    def __init__(self, folder, monkeypatch, plans=5):
        self.folder, self.lines, self.ran, self.saved = folder, [], [], []
        self.streams = streams(6.0, 6.0)
        self.streams.plans = tuple(range(plans))
        self.streams.run = self.run
        self.parent = SimpleNamespace(
            manifest=SimpleNamespace(digest="p" * 64), encoder="encoder", folder=folder / "build" / "fp32"
        )
        self.session = SimpleNamespace(encoder=SimpleNamespace(values={}))
        monkeypatch.setattr(cache, "Probe", lambda *given, threads: (*given, threads))
        monkeypatch.setattr(cache, "ProbedSession", self.opened)
        write = cache._write_state
        monkeypatch.setattr(cache, "_write_state", lambda path, c, done: (self.saved.append(done), write(path, c, done)))

    def opened(self, parent, probe):
        assert parent is self.parent and probe == ("encoder", ["x"], 3)
        return self.session

    def run(self, session, plan):
        assert session is self.session
        self.ran.append(plan)
        for chunk in range(3):
            value = 99.0 if chunk == 0 else 10.0 * plan + chunk
            self.session.encoder.values = {"x": np.array([value], np.float32)}
            yield chunk > 0
            if plan == self.stops:
                raise KeyboardInterrupt

    stops = None

    def calibrate(self, root=None, **options):
        return calibrate(
            self.parent, self.streams, ["x"], root, progress=self.lines.append, collect=RangeCollector, threads=3, **options
        )


def test_a_run_collects_what_is_warm_and_is_saved_every_other_stream(tmp_path, monkeypatch):
    kept = Kept(tmp_path, monkeypatch)
    found = kept.calibrate()
    assert kept.ran == [0, 1, 2, 3, 4] and kept.saved == [2, 4, 5]
    assert found.collector.counts.sum() == 10 and found.collector.ranges("minmax")["x"].high == 42.0
    assert found.folder == tmp_path / "build" / "calibration" / found.digest[:16] and found.corpus_digest == "d" * 64
    record = json.loads((found.folder / "calibration.json").read_text())
    assert record == {
        "parent_digest": "p" * 64, "corpus_digest": "d" * 64, "streams": asdict(ONE), "bins": 8192, "tensors": ["x"],
        "digest": found.digest, "audio_sha256": ["0", "1"],
    }  # fmt: skip
    assert json.loads((found.folder / "summary.json").read_text()) == found.collector.summary()
    assert [(step.done, step.total) for step in kept.lines] == [(i, 5) for i in range(6)]
    again = Kept(tmp_path, monkeypatch)
    same = again.calibrate()
    assert again.ran == [] and again.lines == [] and again.saved == []
    assert all(np.array_equal(array, same.collector.to_arrays()[name]) for name, array in found.collector.to_arrays().items())
    other = Kept(tmp_path, monkeypatch).calibrate(tmp_path / "elsewhere", save_every=5)
    assert other.folder == tmp_path / "elsewhere" / found.digest[:16]


def test_a_run_that_was_stopped_goes_on_behind_its_last_save(tmp_path, monkeypatch):
    kept = Kept(tmp_path, monkeypatch)
    kept.stops = 3
    with pytest.raises(KeyboardInterrupt):
        kept.calibrate()
    assert kept.saved == [2]
    resumed = Kept(tmp_path, monkeypatch)
    found = resumed.calibrate()
    assert resumed.ran == [2, 3, 4] and resumed.saved == [4, 5] and found.collector.counts.sum() == 10
    (found.folder / "summary.json").unlink()
    Kept(tmp_path, monkeypatch).calibrate()
    assert (found.folder / "summary.json").is_file()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_a_damaged_state_is_named(tmp_path, monkeypatch, content):
    kept = Kept(tmp_path, monkeypatch)
    folder = kept.calibrate().folder
    (folder / "state.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="state.npz is damaged") as error:
        kept.calibrate()
    assert error.value.todo == f"remove {folder} and calibrate again"
    np.savez(folder / "state.npz", tensors=np.array(["x"]))
    whole = (folder / "state.npz").read_bytes()
    at = whole.index(b"PK\x01\x02")
    for place, value in ((at + 8, 1), (at + 10, 99), (at + 6, 255)):  # encrypted, packed otherwise, of a later version
        (folder / "state.npz").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match="state.npz is damaged"):
            kept.calibrate()
    (folder / "state.npz").write_bytes(whole)  # which lacks arrays
    with pytest.raises(ArtifactError, match="state.npz is damaged"):
        kept.calibrate()
