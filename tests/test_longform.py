"""The long recording, and what the longform gate must reject in it."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nemoport.speech.corpus import read_corpus
from nemoport.speech.longform import SILENCE_S, LongForm, Segment, make_longform
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gates.longform import SegmentScores

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
MINUTES = 1.0


@pytest.fixture(scope="module")
def folder(build, tmp_path_factory):
    """A copy of the build; the long recording and NeMo's run of it stay in it from test to test."""
    import damage

    return damage.copy_build(build, tmp_path_factory.mktemp("longform") / "build")


@pytest.fixture
def context(folder, reference_checkpoint, eval_corpus, oracle):
    short = limits.limits_of("fp32").override("longform", minutes=MINUTES)
    return Context(folder / "fp32", short, reference_checkpoint, eval_corpus, oracle, threads=1)


def failing(context) -> set[str]:
    return {result.case for result in gates.run_gate("longform", context) if not result.passed}


class Tampered:
    """A session whose encoder frames are changed from some call on."""

    def __init__(self, session, change, first_call: int):
        self.session, self.change, self.first_call, self.calls = session, change, first_call, 0

    def __getattr__(self, name):
        return getattr(self.session, name)

    def encode(self, mel, lengths, state):
        frames, valid, after = self.session.encode(mel, lengths, state)
        self.calls += 1
        return (self.change(frames) if self.calls > self.first_call else frames), valid, after


def tamper(context, change, first_call: int):
    context.runner = replace(context.runner, session=Tampered(context.runner.session, change, first_call))
    return context


def test_fp32_says_what_nemo_says(context):
    results = {result.case: result for result in gates.run_gate("longform", context)}
    assert len(results) == 7 and all(result.passed for result in results.values())
    assert results["segments"].measured == 1.0 and results["WER"].measured == results["NeMo's WER"].measured < 50


def test_words_that_stop_after_half_a_minute(context):
    """What no gate over single utterances can see. Frames of zeros are what silence gives."""
    assert failing(tamper(context, np.zeros_like, 30)) >= {"stalls", "worst minute above NeMo", "segments"}


def test_a_slow_decay(context):
    noise = np.random.default_rng(0)

    def decay(frames):
        return frames + frames.std() * noise.standard_normal(frames.shape).astype(np.float32)

    assert failing(tamper(context, decay, 20)) >= {"difference", "segments"}


def test_the_recording_is_made_once_and_holds_the_texts(eval_corpus, tmp_path):
    form = make_longform(eval_corpus, 3.5, tmp_path)
    stamp = form.corpus.path.stat().st_mtime_ns
    again = make_longform(eval_corpus, 3.5, tmp_path)
    assert again.segments == form.segments and form.corpus.path.stat().st_mtime_ns == stamp
    assert 210 <= form.corpus.seconds < 230 + SILENCE_S
    samples = form.corpus.utterances[0].samples()
    (silent,) = [i for i, segment in enumerate(form.segments) if not segment.text]
    start, stop = form.segments[silent].start_s, form.segments[silent + 1].start_s
    assert stop - start == pytest.approx(SILENCE_S - 1.0, abs=0.01)
    assert not samples[int(start * 16000) : int(stop * 16000) - 16].any()
    utterance = next(u for u in eval_corpus.utterances if u.text == form.segments[3].text)
    begin = round(form.segments[3].start_s * 16000)
    assert np.abs(samples[begin : begin + 8000] - utterance.samples()[:8000]).max() < 1e-4
    assert form.corpus.utterances[0].text.split() == " ".join(s.text for s in form.segments).split()


def test_a_recording_goes_on_where_the_one_before_it_ended(tmp_path):
    corpus = read_corpus(AUDIO / "eval.jsonl", 16000)
    forms = [make_longform(corpus, 1.0, tmp_path, number=number) for number in range(2)]
    texts = [[s.text for s in form.segments if s.text] for form in forms]
    assert len(texts[0]) > 5 < len(texts[1]) and not set(texts[0]) & set(texts[1])
    joined = LongForm.joined(forms)
    assert len(joined.corpus.utterances) == 2 and joined.corpus.seconds == sum(form.corpus.seconds for form in forms)
    starts = [s.start_s for s in joined.segments]
    assert starts == sorted(starts) and starts[len(forms[0].segments)] == 60 * math.ceil(forms[0].corpus.seconds / 60)


def test_an_offline_model_hears_ten_minutes_in_two_passes(eval_corpus, monkeypatch, tmp_path):
    limit = limits.Limits("fp32", (), 1, {"longform": limits.GateLimits({"minutes": 10}, "as in fp32")})
    context = Context(tmp_path / "fp32", limit, None, eval_corpus, None)
    monkeypatch.setattr(Context, "prompt_language", "")
    monkeypatch.setattr(Context, "artifact", SimpleNamespace(longest_s=None))
    monkeypatch.setattr(Context, "nemo_reference", lambda self, corpus, lookahead: [u.seconds for u in corpus.utterances])
    assert [390 <= seconds <= 400 for _, seconds in context.longform(None)] == [True, True]
    assert [600 <= seconds < 620 for _, seconds in context.longform(13)] == [True]


def test_tokens_belong_to_what_was_being_said():
    form = LongForm(None, (Segment(0.0, "a"), Segment(2.0, "b"), Segment(5.0, "")))
    frames = [0, 10, 22, 23, 40, 61, 100]  # of 80 ms: 0, 0.8, 1.76, 1.84, 3.2, 4.88, 8 s
    assert form.split(range(7), frames, 0.08) == [(0, 1, 2), (3, 4), (5, 6)]


def test_a_minute_of_few_words_is_judged_with_its_neighbour():
    """Two lost words of two are 100 points of that minute, and say nothing."""
    said = ["one two three " * 20, "yes no", "four five six " * 20, "thank you"]
    form = LongForm(None, tuple(Segment(60.0 * i + 1, text) for i, text in enumerate(said)))
    told = SegmentScores(form, [()] * 4, [()] * 4, [said[0], "", said[2], ""], said)
    assert [minute.above for minute in told.minutes] == [0, 100, 0, 100]
    worst = told.worst
    assert (worst.number, worst.words) == (1, 64) and worst.above == pytest.approx(100 * 4 / 64)
