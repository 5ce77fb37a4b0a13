"""A stream from call to call: what each returns, where utterances begin, what it refuses. Over a session without a model."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scrambler import BANK, Scrambler, spoken

from nemoport.beam import BeamSearch
from nemoport.caches import NemoCaches, PromptedState
from nemoport.chunker import Chunker, flush_rules
from nemoport.confidence import Confidence
from nemoport.errors import UsageError
from nemoport.long_audio import Timed
from nemoport.prompt import PromptSpec
from nemoport.stream import Stream, advance

RATE_HZ, FRAME_S = 1600, 0.08
AUDIO = spoken(1, 6000)


def stream_of(kind=NemoCaches, lookahead=1, prompt=None, languages=None, **options):
    session = Scrambler(kind)
    session.spec = replace(session.spec, prompt=languages)
    return Stream(session, BANK, lookahead if kind else None, prompt=prompt, **options)


def whole(samples, **options):
    stream = stream_of(**options)
    stream.push(samples)
    stream.finish()
    return stream.timed()


@pytest.mark.parametrize("search", [None, BeamSearch(3, final_enc_frames=4)], ids=["greedy", "beam"])
def test_each_final_token_is_returned_once(search):
    stream, live, final = stream_of(search=search), [], []
    for at in range(0, 6000, 500):
        live += stream.feed(AUDIO[at : at + 500])
        final.append(stream.n_final)
        assert len(live) == final[-1] <= len(stream.tokens) and live == stream.tokens[: len(live)]
    assert len(live) > 10 and sorted(final) == final
    assert [*live, *stream.finish()] == stream.tokens == list(whole(AUDIO, search=search).tokens)
    assert stream.token_seconds == [frame * FRAME_S for frame in stream.decoded.token_frames]


def test_a_flush_ends_an_utterance_and_the_next_has_no_context_of_it():
    """Its times go on from the samples before it; what was flushed stays until audio follows."""
    for kind in (NemoCaches, None):
        stream, expected = stream_of(kind), whole(AUDIO, kind=kind)
        live = stream.feed(AUDIO)
        assert [*live, *stream.flush()] == list(expected.tokens) and stream.timed() == expected
        assert stream.flush() == [] and stream.timed() == expected
        live = [token for part in np.split(AUDIO, 3) for token in stream.feed(part)]
        later = expected.shift(6000 / RATE_HZ)
        assert [*live, *stream.finish()] == list(expected.tokens)
        assert stream.timed().tokens == later.tokens and stream.timed().seconds == pytest.approx(later.seconds)
        assert stream.token_seconds == list(stream.timed().seconds)


def test_a_stream_that_is_reset_is_a_new_one():
    stream = stream_of()
    stream.feed(AUDIO[:3000])
    stream.restarts = 2
    for ending in (lambda: None, stream.close, stream.finish, stream.flush):
        if ending == stream.flush:
            stream.feed(AUDIO)
        ending()
        stream.reset()
        assert (stream.tokens, stream.n_final, stream.restarts, stream.chunks) == ([], 0, 0, [])
        assert [*stream.feed(AUDIO), *stream.finish()] == list(whole(AUDIO).tokens)
        assert stream.timed() == whole(AUDIO)
        stream.reset()


def test_what_a_stream_that_has_ended_refuses():
    def refused(stream, *calls):
        for call in calls:
            with pytest.raises(UsageError, match="has ended"):
                getattr(stream, call)(*([AUDIO] if call in ("push", "feed") else []))

    stream = stream_of()
    stream.push(AUDIO)
    stream.close()
    assert stream.chunks and stream.tokens == []
    refused(stream, "push", "feed", "close", "flush")
    assert stream.finish() == list(whole(AUDIO).tokens)
    refused(stream, "push", "feed", "close", "flush", "finish")


@pytest.mark.parametrize(
    ("frames", "durations", "frame", "seconds"),
    [
        ([], [], 10, 0.8),
        ([3], [0], 10, 0.48),
        ([3], [1], 10, 0.48),
        ([1, 3], [9, 4], 10, 0.24),
        ([9], [3], 10, 0.0),
        ([], [], 0, 0.0),
    ],
)
def test_a_pause_is_from_the_end_of_the_last_token(frames, durations, frame, seconds):
    stream = stream_of()
    stream.decoded = SimpleNamespace(token_frames=frames, token_durations=durations, frame=frame)
    assert stream.pause_seconds == pytest.approx(seconds)


def test_tokens_have_their_times_durations_and_confidence():
    stream = stream_of()
    stream.decoded = SimpleNamespace(
        tokens=[5, 6, 7], token_frames=[1, 2, 4], token_durations=[0, 2, 1], token_confidences=[0.1, 0.2, 0.3]
    )
    stream._start_s = 10.0
    every = Timed((5, 6, 7), (10.08, 10.16, 10.32), (0.0, 0.16, 0.08), (0.1, 0.2, 0.3))
    for part in (slice(0, None), slice(1, 2), slice(2, None)):
        found = stream.timed(part.start, part.stop)
        assert (found.tokens, found.confidences) == (every.tokens[part], every.confidences[part])
        assert found.seconds == pytest.approx(every.seconds[part]) and found.durations == pytest.approx(every.durations[part])
    assert stream.timed() == stream.timed(0, 3)


def test_the_language_may_change():
    stream = stream_of(prompt=1, languages=PromptSpec(4, {"en": 1, "de": 3}))
    assert stream._prompts == [1]
    stream.encoder_state = PromptedState(stream.encoder_state, np.array([1]))
    stream.set_language(3)
    assert stream._prompts == [3]
    assert stream.encoder_state.prompt_index.tolist() == [3] and stream.encoder_state.prompt_index.dtype == np.int64
    with pytest.raises(UsageError):
        stream.set_language(4)
    with pytest.raises(UsageError):
        stream_of().set_language(0)


def test_frames_that_are_not_finite_are_blank_and_the_encoder_begins_anew():
    """Alone of a batch; the next chunk has no cache of it."""
    session = Scrambler(NemoCaches)
    streams = [Stream(session, BANK, 3) for _ in range(3)]
    for stream in streams:
        stream.push(AUDIO)
    encode, spoiled = session.encode, []

    def spoil(mel, lengths, state):
        frames, counts, after = encode(mel, lengths, state)
        frames = frames.astype(np.float32)
        if not spoiled:
            frames[1, 0, -1] = np.nan
            frames[2, counts[2] :] = np.nan  # what is not valid may hold anything
        spoiled.append(state)
        return frames, counts, after

    session.encode = spoil
    with pytest.warns(RuntimeWarning, match="begun anew"):
        out = advance(session, streams)
    assert [stream.restarts for stream in streams] == [0, 1, 0] and np.isnan(out[1]).all()
    assert streams[1].tokens == [] and streams[0].tokens == streams[2].tokens != []
    assert streams[1].decoded.frame == streams[0].decoded.frame == len(out[0])
    fresh = session.unstack(session.initial_state(1))[0].feeds()
    assert all(np.array_equal(streams[1].encoder_state.feeds()[name], array) for name, array in fresh.items())
    assert not all(np.array_equal(streams[0].encoder_state.feeds()[name], array) for name, array in fresh.items())


def test_streams_without_a_chunk_stay_as_they_are():
    session = Scrambler(NemoCaches)
    streams = [Stream(session, BANK, 1) for _ in range(3)]
    streams[1].push(AUDIO)
    count = len(streams[1].chunks)
    out = advance(session, streams)
    assert [part.shape for part in out] == [(0, 4), (2, 4), (0, 4)] and {part.dtype for part in out} == {np.dtype(np.float32)}
    assert len(streams[1].chunks) == count - 1 and [s.decoded.frame for s in streams] == [0, 2, 0]
    assert advance(session, []) == []


def test_first_windows_are_a_batch_of_their_own_and_whole_recordings_share_one():
    for kind, batches in ((NemoCaches, [1, 2]), (None, [3])):
        session = Scrambler(kind)
        streams, sizes, encode = [Stream(session, BANK, 1 if kind else None) for _ in range(3)], [], session.encode
        for stream, length in zip(streams, (6000, 4000, 5000), strict=True):
            stream.push(AUDIO[:length])
            stream.close()
        if kind:
            advance(session, streams[::2])
        session.encode = lambda mel, *rest, sizes=sizes, encode=encode: sizes.append(len(mel)) or encode(mel, *rest)
        advance(session, streams)
        assert sizes == batches


def test_a_stream_has_the_measure_of_confidence_that_it_is_given():
    least, other = (whole(AUDIO, confidence=Confidence(name)).confidences for name in ("max_prob", "entropy_tsallis_exp"))
    assert len(least) == len(other) > 10 and least != other


def test_an_offline_model_has_one_flush_rule():
    assert flush_rules(Scrambler(NemoCaches).spec) == ("full", "nemo") and flush_rules(Scrambler(None).spec) == ("full",)


def test_a_stream_is_flushed_in_full_where_nothing_is_said():
    chunks = {}
    for flush in ("full", "nemo", None):
        stream = stream_of(lookahead=3, **({"flush": flush} if flush else {}))
        stream.push(AUDIO[:5100])
        stream.close()
        direct = Chunker(stream._session.spec.streaming, 8, 3, *([flush] if flush else []))
        cut = [*direct.feed(np.ones((8, 318), np.float32)), *direct.finish()]
        chunks[flush] = [chunk.length for chunk in stream.chunks], [chunk.length for chunk in cut]
    assert chunks[None] == chunks["full"] != chunks["nemo"]
