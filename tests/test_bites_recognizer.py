"""What a recognizer passes on and returns, each thing alone: over a session without a model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from scrambler import BANK, Scrambler, spoken

from nemoport import recognizer as module
from nemoport.audio import open_audio
from nemoport.beam import BeamSearch
from nemoport.caches import NemoCaches
from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence
from nemoport.errors import AudioError, UsageError
from nemoport.long_audio import Timed
from nemoport.lookahead import chosen_lookahead
from nemoport.prompt import PromptSpec
from nemoport.recognizer import Recognizer
from nemoport.stream import Stream
from nemoport.transcription import PASS_S
from nemoport.utterances import EndRule, Utterances
from nemoport.vad import SpokenUtterances
from nemoport.words import segments_of, words_of

PIECES = ["\u2581a", "b", "."]
TAGGED = ["\u2581a", "\u2581<de-DE>", "b"]
PROMPT = PromptSpec(4, {"en": 1, "de": 3})


def session_of(kind=NemoCaches, prompt=None):
    session = Scrambler(kind)
    session.spec = replace(session.spec, prompt=prompt)
    return session


def recognizer(kind=NemoCaches, pieces=PIECES, prompt=None, **options):
    return Recognizer(session_of(kind, prompt), BANK, pieces, 1 if kind else None, **options)


def streamed(session, samples, *arguments, **options):
    stream = Stream(session, BANK, *arguments, **options)
    stream.push(samples)
    stream.finish()
    return stream


@pytest.mark.parametrize("search", [None, BeamSearch(2)], ids=["greedy", "beam"])
def test_a_hypothesis_has_all_that_the_stream_found(search):
    measure, audio = Confidence("entropy_gibbs_lin"), spoken(1, 9000)
    made = recognizer(flush="nemo", search=search, confidence=measure)
    (found,) = made.transcribe([("name", audio)])
    timed = streamed(made.session, audio, 1, "nemo", search=search, confidence=measure).timed()
    assert len(timed.tokens) > 20 and (found.id, found.tokens, found.languages) == ("name", timed.tokens, ())
    assert found.token_seconds == timed.seconds and found.token_duration_seconds == timed.durations
    assert found.token_confidences == timed.confidences
    assert found.words == words_of(timed, PIECES, frozenset("."), made.session.spec) and found.segments == segments_of(
        found.words
    )
    assert found.text == made.text(timed.tokens) == "".join(PIECES[t] for t in timed.tokens).replace("\u2581", " ").lstrip(" ")
    assert found.audio_seconds == 9000 / 1600 and 0 < found.work_seconds < 60
    assert made.sample_rate_hz == 1600


def test_a_live_stream_has_a_hypothesis_too():
    made, audio = recognizer(), spoken(2, 5000)
    stream = made.stream()
    live = [*stream.feed(audio), *stream.finish()]
    found = made.hypothesis(stream, id="live", samples=5000, work_seconds=1.5)
    (whole,) = made.transcribe(audio)
    assert found == replace(whole, id="live", work_seconds=1.5) and tuple(live) == whole.tokens and whole.id == "0"
    bare = made.hypothesis(stream)
    assert (bare.id, bare.audio_seconds, bare.work_seconds) == ("", 0.0, 0.0)


def test_a_language_is_that_of_the_recognizer_or_of_a_stream():
    made = recognizer(pieces=TAGGED, prompt=PROMPT, language="de")
    assert (made.prompt, made.stream()._prompts, made.stream("en")._prompts) == (3, [3], [1])
    assert made.text([0, 2, 1, 0]) == "ab a" and made.languages([0, 1, 2, 1]) == ("de-DE", "de-DE")
    assert made.spelling().feed([0, 1]) + made.spelling().finish() == "a"
    other = recognizer(pieces=TAGGED)
    assert other.text([0, 1, 0]) == "a <de-DE> a" and other.languages([1]) == ()
    spelling = other.spelling()
    assert spelling.feed([0, 1]) + spelling.finish() == "a <de-DE>"
    (found,) = made.transcribe([("x", spoken(3, 9000), "en")])
    assert found.languages and set(found.languages) == {"de-DE"} and "<" not in found.text
    for language in ("fr", ""):
        with pytest.raises(UsageError):
            made.stream(language)
        with pytest.raises(UsageError):
            list(made.transcribe([("x", spoken(3, 100), language)]))
    with pytest.raises(UsageError, match="needs a language"):
        recognizer(prompt=PROMPT)
    with pytest.raises(UsageError, match="no language prompt"):
        recognizer(language="de")


def test_the_languages_prompt_reaches_the_session():
    made = recognizer(pieces=TAGGED, prompt=PROMPT, language="de")
    asked = []
    made.session.initial_state = lambda batch, prompts: (
        asked.append(list(prompts)) or Scrambler.initial_state(made.session, batch)
    )
    list(made.transcribe([("a", spoken(1, 100)), ("b", spoken(1, 100), "en"), ("c", spoken(1, 100), None)]))
    assert asked == [[3], [1], [3]]


@pytest.mark.parametrize(("lookahead", "flush"), [(2, "full"), (1, "never"), (None, "full")])
def test_what_the_model_does_not_take_is_refused_at_once(lookahead, flush):
    with pytest.raises(UsageError):
        Recognizer(session_of(), BANK, PIECES, lookahead, flush)


def test_words_of_a_stream_are_those_of_the_recognizer():
    made = recognizer()
    timed = Timed((0, 1, 2), (0.0, 0.08, 0.16), (0.0,) * 3, (0.5,) * 3)
    times = made.word_times()
    assert (*times.feed(timed), *times.finish()) == words_of(timed, PIECES, frozenset("."), made.session.spec)
    assert times.feed(timed) == [] and times.incomplete == "ab."


def test_files_that_cannot_be_used_cost_no_other(tmp_path):
    soundfile.write(tmp_path / "a.wav", spoken(1, 9000), 16000)
    made, lost = recognizer(), []
    paths = [str(tmp_path / name) for name in ("absent.wav", "a.wav")]
    (found,) = made.transcribe([*paths, ("nan", np.array([np.nan]))], failed=lambda name, error: lost.append((name, type(error))))
    assert found.id == paths[1] and lost == [(paths[0], AudioError), ("nan", AudioError)]
    for bad in (paths[0], np.array([np.nan], np.float32)):
        with pytest.raises(AudioError):
            list(made.transcribe(bad))
    with pytest.raises(UsageError, match="Streams cannot be fewer than one"):
        made.transcribe([], streams=0)
    assert list(made.transcribe([], streams=1)) == []


def test_a_file_has_channels(tmp_path):
    left, right = spoken(1, 40000), spoken(2, 40000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    made = recognizer()
    transcribed = {channel: made.transcribe_file(tmp_path / "a.wav", channel=channel) for channel in (None, 0, 1)}
    for channel in transcribed:
        samples = open_audio(tmp_path / "a.wav", 1600, channel=channel).read(5000)
        assert transcribed[channel].tokens == next(made.transcribe(samples)).tokens
    assert len({one.tokens for one in transcribed.values()}) == 3
    assert {one.id for one in transcribed.values()} == {str(tmp_path / "a.wav")} and made.transcribe_file(str(tmp_path / "a.wav"))


def test_options_of_transcribing_are_passed_on(monkeypatch):
    given = []
    monkeypatch.setattr(
        module, "transcribe", lambda session, requests, *rest: given.append((session, list(requests), rest)) or []
    )
    made = recognizer(None, pass_s=100.0, trim_silence=True)
    assert list(made.transcribe([("a", spoken(1, 10))], streams=3, packet_samples=7, failed=print)) == []
    ((session, ((name, source, start),), rest),) = given
    assert (session, name, len(source.read(99)), rest) == (made.session, "a", 10, (100.0, 3, 7, True, print))
    assert isinstance(start(), Stream)
    assert list(recognizer(None).transcribe([])) == [] and given[1][2] == (PASS_S, 1, 0, False, None)


def test_an_offline_models_long_recordings_are_windows():
    made = recognizer(None, pass_s=31.0)
    lengths = []

    def push(self, samples):
        lengths.append(len(samples))
        return Stream.push(self, samples)

    made._stream = lambda lookahead, language: type("Counted", (Stream,), {"push": push})(made.session, BANK, None)
    next(made.transcribe(spoken(1, 40 * 1600)))
    assert lengths == [31 * 1600] * 2


def test_live_utterances_of_a_streaming_model():
    made = recognizer(pieces=TAGGED, prompt=PROMPT, language="de")
    live = made.utterances()
    assert isinstance(live, Utterances) and live._rule == EndRule() and live.stream._prompts == [3]
    live = made.utterances(EndRule(0.3), "en")
    assert live._rule == EndRule(0.3) and live.stream._prompts == [1]
    assert live._spec is made.session.spec
    plain, audio = recognizer(), spoken(1, 9000)
    live = plain.utterances(EndRule(0.2))
    ended = [*live.feed(audio), *live.finish()]
    (whole,) = plain.transcribe(audio)
    assert len(ended) > 1 and "".join(one.text for one in ended).replace(" ", "") == whole.text.replace(" ", "")


def test_live_utterances_of_an_offline_model(monkeypatch):
    monkeypatch.setattr(module, "silero_vad", lambda rate_hz: f"detector at {rate_hz} Hz")
    made = recognizer(None, pieces=TAGGED, prompt=PROMPT, language="de", pass_s=50.0)
    live = made.utterances()
    assert isinstance(live, SpokenUtterances)
    assert (live._rule, live._detector) == (EndRule(longest_s=50.0), "detector at 1600 Hz")
    assert made.utterances(EndRule(1.0, 20.0))._rule == EndRule(1.0, 20.0)
    asked = []

    def transcribe(utterances):
        asked.extend(utterances)
        return Recognizer.transcribe(made, utterances)

    made.transcribe = transcribe
    audio = spoken(1, 9000)
    found = made.utterances(language="en")._transcribe(audio, 10.0)
    (whole,) = Recognizer.transcribe(made, [("", audio, "en")])
    assert found.words == tuple(replace(w, start=w.start + 10, end=w.end + 10) for w in whole.words) and found.words
    assert asked == [("", audio, "en")]
    assert made.utterances()._transcribe(np.zeros(0, np.float32), 10.0) is None


# Opening


class Folder:
    """What `open` reads and makes, written down: each thing that it is given is looked at or noted."""

    def __init__(self, monkeypatch, spec, default=1, lookaheads=(0, 1, 3)):
        config = {"encoder": {"chunks_by_lookahead": {}, "default_lookahead": default}}
        self.artifact = SimpleNamespace(
            spec=spec,
            shared=Path("shared"),
            filterbank=lambda: BANK,
            lookaheads=lookaheads,
            config=lambda: config,
            folder=Path("v"),
            longest_s=None,
        )
        self.session, self.masks, self.searches, self.sessions = session_of(), [], [], []
        self.session.spec = spec
        monkeypatch.setattr(module, "variant_folder", lambda folder, variant: (folder, variant))
        monkeypatch.setattr(module, "Artifact", SimpleNamespace(open=self.open))
        monkeypatch.setattr(module, "read_tokens", {Path("shared/tokens.txt"): PIECES}.get)
        monkeypatch.setattr(module, "allowed_tokens", self.allowed)
        monkeypatch.setattr(module, "kept_pieces", lambda pieces, allowed: (pieces, allowed, "kept"))
        monkeypatch.setattr(module, "search_of", self.search)
        monkeypatch.setattr(module, "open_session", self.open_session)
        monkeypatch.setattr(module, "restricted", lambda session, allowed: session if allowed == "allowed" else None)

    def open(self, where):
        self.opened = where
        return self.artifact

    def allowed(self, pieces, scripts, mask):
        assert pieces is PIECES
        self.masks.append((scripts, mask))
        return "allowed"

    def search(self, spec, pieces, *rest):
        assert spec is self.artifact.spec and pieces == (PIECES, "allowed", "kept")
        self.searches.append(rest)
        return BeamSearch(3)

    def open_session(self, artifact, *rest, built_here):
        assert artifact is self.artifact
        self.sessions.append((*rest, built_here))
        return self.session


def test_every_option_of_open_arrives(monkeypatch):
    folder = Folder(monkeypatch, session_of(prompt=PROMPT).spec)
    made = Recognizer.open(
        "F", 3, flush="nemo", provider="cuda", threads=2, language="de", beam=4, hotwords=["x"], hotword_boost=2.0,
        language_model="lm", confidence="max_prob", scripts=["Latin"], token_mask="m", variant="fp16", built_here=True,
    )  # fmt: skip
    assert folder.opened == ("F", "fp16") and folder.masks == [(["Latin"], "m")] and folder.searches == [(4, ["x"], 2.0, "lm")]
    assert folder.sessions == [("cuda", 2, True)]
    assert (made.session, made.lookahead, made.flush, made.prompt) == (folder.session, 3, "nemo", 3)
    assert (made._filterbank is BANK, made._pieces, made._search) == (True, PIECES, BeamSearch(3))
    assert made._confidence == Confidence("max_prob")


def test_what_open_does_by_default(monkeypatch):
    folder = Folder(monkeypatch, session_of().spec)
    made = Recognizer.open("F")
    assert folder.opened == ("F", None) and folder.masks == [((), None)] and folder.searches == [(1, (), None, None)]
    assert folder.sessions == [("cpu", 0, False)]
    assert (made.lookahead, made.flush, made.pass_s, made.prompt, made.trim_silence) == (1, "full", PASS_S, None, False)
    assert made._confidence == DEFAULT_CONFIDENCE
    with pytest.raises(UsageError, match="Threads cannot be less") as error:
        Recognizer.open("F", threads=-1)
    assert error.value.found == "-1"


def test_what_open_takes_for_an_offline_model(monkeypatch):
    Folder(monkeypatch, session_of(None).spec, lookaheads=(None,))
    made = Recognizer.open("F", pass_s=100.0, trim_silence=True)
    assert (made.lookahead, made.pass_s, made.trim_silence) == (None, 100.0, True)


def test_the_longest_pass_is_that_of_the_graphs(monkeypatch):
    folder = Folder(monkeypatch, session_of(None).spec, lookaheads=(None,))
    folder.artifact.longest_s = 40
    assert Recognizer.open("F").pass_s == 40


@pytest.mark.parametrize(
    ("asked", "served", "found"),
    [(None, (0, 1, 3), 1), (None, (3,), 3), (None, (3, 0), 3), (0, (0, 1, 3), 0), (3, (3,), 3), (7, (3,), 7), (7, (0, 1, 3), 7)],
)
def test_the_lookahead_is_the_default_of_config_json_or_one_that_the_graphs_serve(asked, served, found):
    """One that the model does not have is refused where chunks are cut."""
    config = {"encoder": {"chunks_by_lookahead": {}, "default_lookahead": 1}}
    artifact = SimpleNamespace(spec=session_of().spec, lookaheads=served, config=lambda: config, folder=Path("fp32"))
    assert chosen_lookahead(artifact, asked) == found
    if asked is None:
        with pytest.raises(UsageError, match="fp32 has fixed shapes, for one lookahead") as error:
            chosen_lookahead(SimpleNamespace(**{**vars(artifact), "lookaheads": (3, 0)}), 1)
        assert (error.value.expected, error.value.found) == ("3, 0", "1")


def test_an_offline_model_has_no_lookahead_to_look_up():
    assert chosen_lookahead(SimpleNamespace(spec=session_of(None).spec, lookaheads=(None,)), None) is None
