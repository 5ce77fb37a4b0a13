"""Utterances of a live stream, its flush and its reset."""

import numpy as np
import pytest

from nemoport.errors import UsageError
from nemoport.events import EventSpec
from nemoport.long_audio import Timed
from nemoport.recognizer import Recognizer
from nemoport.tokens import Pieces, SpellingRule
from nemoport.utterances import EndRule, Utterances
from nemoport.words import WordTimes

PIECES = Pieces(["\u2581a", "b", "\u2581c", "<EOU>", "."], SpellingRule(events=(3,)))
FRAME_S = 0.08


class Script:
    """Stands for a stream that decodes tokens at given frames, a frame for each sample fed."""

    begun = 1

    def __init__(self, emitted: dict[int, int], lag: int = 0):
        self.emitted, self.frame, self.lag, self.ended = emitted, 0, lag, False

    def feed(self, samples):
        self.frame += len(samples)

    def finish(self):
        self.ended = True

    @property
    def tokens(self):
        return [token for frame, token in self.emitted.items() if frame < self.frame]

    @property
    def n_final(self):
        return len(self.tokens) - (0 if self.ended else self.lag)

    @property
    def pause_seconds(self):
        frames = [frame for frame in self.emitted if frame < self.frame]
        return (self.frame - (frames[-1] + 1 if frames else 0)) * FRAME_S

    def timed(self, start, stop):
        frames = [frame for frame in self.emitted if frame < self.frame][start:stop]
        n = len(frames)
        return Timed(tuple(self.tokens[start:stop]), tuple(f * FRAME_S for f in frames), (0.0,) * n, (0.5,) * n)


def spec():
    from types import SimpleNamespace

    return SimpleNamespace(
        decoding=SimpleNamespace(durations=()), frame_seconds=FRAME_S, prompt=None, events=EventSpec(3), head="rnnt"
    )


def transcribed(emitted, rule, packet, total=100, lag=0):
    """Utterances, and the frame at which each was returned."""
    live = Utterances(Script(emitted, lag), WordTimes(PIECES, frozenset("."), spec()), spec(), rule)
    found = []
    for at in range(0, total, packet):
        found += [(s.text, min(at + packet, total)) for s in live.feed(np.zeros(min(packet, total - at)))]
    return found + [(s.text, None) for s in live.finish()]


# frame -> token: "ab c", a pause of nine frames behind frame 6, "a", one of ten frames behind frame 16, "c"
SPOKEN = {3: 0, 4: 1, 6: 2, 16: 0, 27: 2}


@pytest.mark.parametrize("packet", [1, 100])
def test_what_follows_an_end_token_in_a_packet_is_the_next_utterance(packet):
    found = transcribed({1: 0, 2: 3, 3: 2, 4: 1, 6: 3, 7: 3, 8: 0}, EndRule(50 * FRAME_S), packet)
    assert [text for text, _ in found] == ["a", "cb", "a"]


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("packet", [1, 7, 100])
@pytest.mark.parametrize("frames", [9, 10, 11])
def test_a_pause_ends_an_utterance_at_its_length_whatever_the_packets(frames, packet, lag):
    found = transcribed(SPOKEN, EndRule(frames * FRAME_S), packet, lag=lag)
    assert [text for text, _ in found] == {9: ["ab c", "a", "c"], 10: ["ab c a", "c"], 11: ["ab c a c"]}[frames]
    if packet == 1 and lag == 0:  # each as soon as the pause is as long
        ends = {9: [7 + 9, 17 + 9, 28 + 9], 10: [17 + 10, 28 + 10], 11: [28 + 11]}[frames]
        assert [at for _, at in found] == ends


def test_a_token_of_the_model_ends_an_utterance_and_is_no_word():
    found = transcribed({3: 0, 4: 3, 5: 2, 6: 3}, EndRule(float("inf")), 1)
    assert found == [("a", 5), ("c", 7)]


def test_a_long_utterance_ends_before_the_word_that_is_too_much():
    emitted = {3 * n: 0 for n in range(20)}
    found = transcribed(emitted, EndRule(float("inf"), longest_s=10 * FRAME_S), 1)
    assert [text for text, _ in found] == ["a a a a"] * 5


def test_what_tokens_may_still_change_waits():
    assert [text for text, _ in transcribed({3: 0, 4: 1}, EndRule(), 1, total=90, lag=1)] == ["ab"]


@pytest.mark.parametrize("rule", [{"pause_s": 0}, {"pause_s": -1}, {"pause_s": float("nan")}, {"longest_s": 0}])
def test_a_rule_without_a_length_is_refused(rule):
    with pytest.raises(UsageError):
        EndRule(**rule)


@pytest.fixture(scope="module")
def recognizer(build):
    return Recognizer.open(build / "fp32")


@pytest.fixture(scope="module")
def speech(eval_corpus):
    return [u.samples() for u in eval_corpus.utterances[:3]]


def test_a_long_session_has_the_words_of_one_stream(recognizer, speech):
    silence = np.zeros(recognizer.sample_rate_hz * 2, np.float32)
    audio = np.concatenate([part for samples in speech for part in (samples, silence)])
    (whole,) = recognizer.transcribe([("a", audio)])
    live = recognizer.utterances(EndRule(1.0))
    ended, partial = [], []
    for at in range(0, len(audio), 1600):
        ended += live.feed(audio[at : at + 1600])
        partial.append(live.text)
    assert [s.text for s in ended] and not live.finish()
    words = [word for segment in ended for word in segment.words]
    assert [(w.text, w.start, w.end) for w in words] == [(w.text, w.start, w.end) for w in whole.words]
    assert len(ended) >= 3 and any(partial) and partial[-1] == ""


def test_flush_ends_an_utterance_and_times_go_on(recognizer, speech):
    alone = [next(recognizer.transcribe([("a", samples)])) for samples in speech]
    stream, at = recognizer.stream(), 0.0
    for number, samples in enumerate(speech):
        returned = stream.feed(samples)
        if number == 1:
            assert stream.token_seconds and stream.token_seconds[0] >= at  # of this utterance alone
        returned += stream.flush() + stream.flush()
        assert tuple(returned) == alone[number].tokens == tuple(stream.tokens)
        expected = np.array(alone[number].token_seconds) + at
        np.testing.assert_allclose(stream.token_seconds, expected)
        np.testing.assert_allclose(stream.timed().seconds, expected)
        at += len(samples) / recognizer.sample_rate_hz
    assert stream.finish() == [] and tuple(stream.tokens) == alone[-1].tokens
    with pytest.raises(UsageError, match="has ended"):
        stream.flush()


def test_reset_makes_a_new_stream(recognizer, speech):
    expected = next(recognizer.transcribe([("a", speech[0])])).tokens
    stream = recognizer.stream()
    stream.feed(speech[1])
    for _ in range(2):  # in the middle, and behind the end
        stream.reset()
        assert stream.tokens == [] and stream.pause_seconds == 0
        assert tuple(stream.feed(speech[0]) + stream.finish()) == expected and stream.token_seconds[0] < 2


def test_pause_is_the_audio_behind_the_last_token(recognizer, speech):
    stream = recognizer.stream()
    stream.feed(np.zeros(recognizer.sample_rate_hz, np.float32))
    assert 0.5 < stream.pause_seconds <= 1.0
    stream.feed(speech[0])
    stream.feed(np.zeros(3 * recognizer.sample_rate_hz, np.float32))
    end = stream.token_seconds[-1] + FRAME_S
    assert stream.pause_seconds == pytest.approx(stream.decoded.frame * FRAME_S - end) and stream.pause_seconds > 2
