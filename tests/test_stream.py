"""The chunk loop and greedy decoding: windows equal NeMo's, packets and batches change nothing."""

import numpy as np
import pytest

from nemoport.caches import NemoCaches
from nemoport.chunker import Chunker
from nemoport.decode import GreedyState, greedy, score
from nemoport.errors import AudioError, UsageError
from nemoport.recognizer import Recognizer
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, StreamingSpec
from nemoport.stream import advance

PUBLISHED = StreamingSpec(24, 1024, 8, 70, (13, 6, 1, 0), 8, 8, 9)


def test_published_geometry():
    """The figures of NeMo's streaming_cfg for the published checkpoint."""
    windows = {r: [PUBLISHED.window_mel_frames(r, first=first) for first in (True, False)] for r in (13, 6, 1, 0)}
    assert windows == {13: [105, 121], 6: [49, 65], 1: [9, 25], 0: [1, 17]}
    assert PUBLISHED.drop_enc_frames == 2
    assert NemoCaches.shapes(PUBLISHED, 1)["cache_last_channel"] == (1, 24, 70, 1024)


def cut(mel, lookahead, flush, packets):
    chunker = Chunker(PUBLISHED, len(mel), lookahead, flush)
    chunks = [c for part in np.split(mel, packets, axis=1) for c in chunker.feed(part)]
    return chunks + chunker.finish()


@pytest.mark.parametrize("lookahead", PUBLISHED.lookaheads)
def test_full_flush_covers_every_frame_once(lookahead):
    rng = np.random.default_rng(lookahead)
    for frames in [1, 2, 8, 9, 16, 17, 48, 49, 50, 57, 104, 105, 106, 120, 300]:
        mel = np.arange(1, frames + 1, dtype=np.float32)[None].repeat(4, 0)
        chunks = cut(mel, lookahead, "full", sorted(rng.integers(0, frames + 1, 3)))
        new = [c.mel[0, (0 if c.first else 9) : c.length] for c in chunks]
        assert np.concatenate(new).tolist() == mel[0].tolist()
        for before, chunk in zip(chunks, chunks[1:], strict=False):
            behind = np.concatenate([np.zeros(9), before.mel[0, : before.length]])[-9:]
            assert chunk.mel[0, :9].tolist() == behind.tolist()
        assert [c.first for c in chunks] == [True] + [False] * (len(chunks) - 1)
        assert {c.mel.shape[1] for c in chunks[1:]} <= {PUBLISHED.window_mel_frames(lookahead, first=False)}


@pytest.fixture(scope="module")
def nemo_buffer():
    """NeMo's own buffer over a given mel, without a model: only what it reads of one."""
    pytest.importorskip("nemo")
    from types import SimpleNamespace

    import torch
    from nemo.collections.asr.models.configs import CacheAwareStreamingConfig
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    def windows(mel, lookahead):
        config = CacheAwareStreamingConfig(
            chunk_size=[1 + 8 * lookahead, 8 * (lookahead + 1)],
            shift_size=[1 + 8 * lookahead, 8 * (lookahead + 1)],
            pre_encode_cache_size=[0, 9],
        )
        buffer = CacheAwareStreamingAudioBuffer.__new__(CacheAwareStreamingAudioBuffer)
        buffer.__dict__ |= dict(
            buffer=None, buffer_idx=0, streams_length=None, step=0, pad_and_drop_preencoded=False,
            online_normalization=False, streaming_cfg=config, input_features=mel.shape[0], sampling_frames=[1, 8],
            model=SimpleNamespace(),
        )  # fmt: skip
        buffer.append_processed_signal(torch.from_numpy(mel)[None])
        return [(x[0].numpy(), int(length[0])) for x, length in buffer]

    return windows


@pytest.mark.parametrize("lookahead", PUBLISHED.lookaheads)
def test_nemo_flush_cuts_what_nemos_buffer_cuts(nemo_buffer, lookahead):
    rng = np.random.default_rng(lookahead)
    for frames in [*range(1, 40), 48, 49, 56, 57, 104, 105, 111, 112, 113, 119, 120, 217, 224, 300]:
        mel = rng.normal(size=(2, frames)).astype(np.float32)
        theirs = nemo_buffer(np.pad(mel, ((0, 0), (0, 1))), lookahead)  # NeMo's STFT yields one frame of zeros more
        ours = cut(mel, lookahead, "nemo", [frames // 3])
        assert [c.length for c in ours] == [length for _, length in theirs]
        for chunk, (window, length) in zip(ours, theirs, strict=True):
            assert np.array_equal(chunk.mel[:, :length], window)
            assert not chunk.mel[:, length:].any()


def test_the_two_flush_rules_differ():
    """A test of the test above: the tail that NeMo drops is in the other rule's windows."""
    mel = np.ones((2, 49 + 5), np.float32)
    assert len(cut(mel, 6, "full", [20])) == len(cut(mel, 6, "nemo", [20])) + 1


@pytest.mark.parametrize(("lookahead", "flush"), [(3, "full"), (6, "none")])
def test_unknown_choices_are_refused(lookahead, flush):
    with pytest.raises(UsageError, match="expected: .*13|expected: full or nemo"):
        Chunker(PUBLISHED, 2, lookahead, flush)


class Script:
    """A session whose best tokens are scripted: script[stream][frame][how many tokens were emitted on that frame]."""

    def __init__(self, scripts, vocabulary=5, max_symbols=10):
        decoding = DecodingSpec(vocabulary, 1, 1, 1, max_symbols)
        self.spec = ModelSpec("streaming-rnnt", FrontendSpec(16000, 2, 4, 4, 2, 0.0, 1.0, "NA"), decoding, PUBLISHED)
        self.scripts, self.calls, self.first_tokens = scripts, 0, []

    def step(self, frames, tokens, state):
        """A frame carries (stream, frame); the state carries how many tokens the stream has consumed."""
        self.calls += 1
        self.first_tokens.append(tokens.tolist())
        logits = np.zeros((*frames.shape[:2], self.spec.decoding.vocab_size + 1), np.float32)
        for row in range(len(frames)):
            for t in range(frames.shape[1]):
                stream, frame = frames[row, t].astype(int)
                emitted = int(state[0][0, row, 0]) + (tokens[row] != self.spec.decoding.blank_id)
                before = sum(len(f) for f in self.scripts[stream][:frame])
                script = self.scripts[stream][frame]
                spoken = emitted - before
                best = script[spoken] if 0 <= spoken < len(script) else self.spec.decoding.blank_id
                logits[row, t, best] = 1
        return logits, (state[0] + (tokens != self.spec.decoding.blank_id)[None, :, None], state[1])


def decode(scripts, chunk=3, **options):
    session = Script(scripts, **options)
    states = [GreedyState.initial(session.spec.decoding) for _ in scripts]
    longest = max(len(s) for s in scripts)
    for start in range(0, longest, chunk):
        frames = np.array([[(b, min(start + t, len(s) - 1)) for t in range(chunk)] for b, s in enumerate(scripts)])
        lengths = np.array([np.clip(len(s) - start, 0, chunk) for s in scripts])
        greedy(session, frames.astype(np.float32), lengths, states)
    return session, states


SCRIPTS = [[[1, 2], [], [3], [], [], [4, 0, 1]], [[], []], [[2], [2], [2, 2, 2], [1], [], [], [0]], [[]]]


def test_greedy_follows_the_script_in_a_batch_and_alone():
    session, together = decode(SCRIPTS)
    for script, state in zip(SCRIPTS, together, strict=True):
        assert state.tokens == [token for frame in script for token in frame]
        assert state.token_frames == [t for t, frame in enumerate(script) for _ in frame]
        assert state.frame == len(script)
        alone = decode([script])[1][0]
        assert (alone.tokens, alone.token_frames) == (state.tokens, state.token_frames)
    assert session.first_tokens[0] == [5] * 4  # blank is the first target of every stream


def test_greedy_needs_one_call_per_token_not_per_frame():
    session, _ = decode([[[1], [], [], [], [], []]], chunk=6)
    assert session.calls == 2


def test_greedy_leaves_a_frame_after_max_symbols():
    """NeMo's guard: a model that never says blank still ends, with max_symbols tokens a frame."""
    _, (state,) = decode([[[1] * 3, [2] * 3]], max_symbols=3)
    assert state.tokens == [1, 1, 1, 2, 2, 2]
    endless = Script([[[1] * 99, [1] * 99]], max_symbols=4)
    state = GreedyState.initial(endless.spec.decoding)
    endless.step = lambda frames, tokens, state: (np.eye(6, dtype=np.float32)[[[1] * frames.shape[1]]], state)
    greedy(endless, np.zeros((1, 2, 2), np.float32), np.array([2]), [state])
    assert state.token_frames == [0] * 4 + [1] * 4


@pytest.fixture(scope="module")
def utterances(eval_corpus):
    return [(u.id, u.samples()) for u in eval_corpus.utterances][:8]


@pytest.fixture(scope="module")
def alone(build, utterances):
    recognizer = Recognizer.open(build / "fp32", threads=1)
    return {h.id: h for h in recognizer.transcribe(utterances)}


def test_packets_of_any_size_give_the_same(build, utterances, alone):
    recognizer = Recognizer.open(build / "fp32", threads=1)
    for packet_ms in (1, 10, 37, 560, 5000):
        some = utterances if packet_ms > 1 else utterances[:2]
        for h in recognizer.transcribe(some, packet_samples=16 * packet_ms):
            assert (h.tokens, h.token_seconds) == (alone[h.id].tokens, alone[h.id].token_seconds), packet_ms


@pytest.mark.parametrize("streams", [3, 8])
def test_streams_that_join_and_leave_a_batch_give_the_same(build, utterances, alone, streams):
    recognizer = Recognizer.open(build / "fp32", threads=1)
    found = {h.id: h for h in recognizer.transcribe(utterances, streams=streams, packet_samples=8000)}
    assert found.keys() == alone.keys()
    for h in found.values():
        assert (h.tokens, h.text, h.audio_seconds) == (alone[h.id].tokens, alone[h.id].text, alone[h.id].audio_seconds)


def test_live_stream_returns_each_token_once(build, utterances, alone):
    name, samples = utterances[0]
    recognizer = Recognizer.open(build / "fp32", threads=1)
    stream = recognizer.stream()
    live = [token for part in np.array_split(samples, 20) for token in stream.feed(part)] + stream.finish()
    assert tuple(live) == alone[name].tokens != ()
    assert stream.token_seconds == sorted(stream.token_seconds)
    assert stream.token_seconds[-1] <= len(samples) / 16000 + 0.08  # the last frame may reach past the end


def test_a_refused_packet_leaves_the_stream_as_it_was(build, utterances, alone):
    """The caller may go on: a sample of 3e38 would give unknown tokens until the end of the stream."""
    name, samples = utterances[0]
    stream = Recognizer.open(build / "fp32", threads=1).stream()
    live = stream.feed(samples[:8000])
    for bad in (np.full(160, 3e38, np.float32), np.full(160, np.nan, np.float32), np.zeros((2, 160), np.float32)):
        with pytest.raises(AudioError):
            stream.feed(bad)
    live += stream.feed(samples[8000:]) + stream.finish()
    assert tuple(live) == alone[name].tokens != ()


def test_deprecated_names_warn_and_work(build, utterances):
    """`tell` is `set_language`, `certain` is `n_final`."""
    stream = Recognizer.open(build / "fp32", threads=1).stream()
    stream.feed(utterances[0][1])
    with pytest.warns(DeprecationWarning, match="Stream.certain is Stream.n_final now"):
        assert stream.certain == stream.n_final == len(stream.tokens) > 0
    slots = []
    stream.set_language = slots.append  # the checkpoint has no prompt
    with pytest.warns(DeprecationWarning, match="Stream.tell is Stream.set_language now"):
        stream.tell(3)
    assert slots == [3]


def test_silence_gives_frames_and_does_not_wedge(build, utterances, alone):
    """Speech behind half a minute of digital silence is still transcribed (peers.md: a stream that wedges after silence)."""
    name, samples = utterances[1]
    recognizer = Recognizer.open(build / "fp32", threads=1)
    (h,) = recognizer.transcribe([(name, np.concatenate([np.zeros(30 * 16000, np.float32), samples]))])
    spoken = [s for s in h.token_seconds if s >= 29.5]
    assert len(spoken) >= 0.5 * len(alone[name].tokens)


class Spoiled:
    """A session whose encoder gives NaN for one stream of a batch at one chunk, in its frames and in every cache."""

    def __init__(self, session, stream, chunk):
        self._session, self._stream, self._chunk, self.chunks = session, stream, chunk, 0

    def __getattr__(self, name):
        return getattr(self._session, name)

    def encode(self, mel, lengths, state):
        frames, counts, state = self._session.encode(mel, lengths, state)
        self.chunks += 1
        if self.chunks == self._chunk:
            frames = frames.copy()
            frames[self._stream] = np.nan
            rows = self._session.unstack(state)
            spoiled = self._session.stack([rows[self._stream]])
            for values in spoiled.feeds().values():
                if values.dtype.kind == "f":
                    values[:] = np.nan
            rows[self._stream] = self._session.unstack(spoiled)[0]
            state = self._session.stack(rows)
        return frames, counts, state


@pytest.mark.parametrize("beam", [1, 2])
def test_frames_that_are_not_finite_end_no_stream_and_no_neighbour(build, utterances, beam):
    recognizer = Recognizer.open(build / "fp32", threads=1, beam=beam)
    audio = [np.concatenate([utterances[i][1], np.zeros(32000, np.float32), utterances[i + 1][1]]) for i in (0, 2)]
    alone = [transcript(recognizer, [one])[0] for one in audio]
    recognizer.session = Spoiled(recognizer.session, 1, 3)
    with pytest.warns(RuntimeWarning, match="not finite"):
        found = transcript(recognizer, audio)
    assert found[0] == alone[0]
    assert found[1] != alone[1] and set(found[1]) - {0}
    assert found[1][-5:] == alone[1][-5:], "the second sentence behind the fault is transcribed"


def transcript(recognizer, audio):
    streams = [recognizer.stream() for _ in audio]
    for stream, samples in zip(streams, audio, strict=True):
        stream.push(samples)
        stream.close()
    while any(stream.chunks for stream in streams):
        advance(recognizer.session, streams)
    return [stream.tokens for stream in streams]


def test_scores_that_are_not_finite_are_blank():
    """And the state that caused them is not kept."""

    class Overflowing(Script):
        def step(self, frames, tokens, state):
            scores, (hidden, cell) = super().step(frames, tokens, state)
            scores[0] = np.nan
            return scores, (np.full_like(hidden, np.inf), cell)

    session = Overflowing([[[1], [2]], [[3], [4]]])
    frames = np.array([[[stream, frame] for frame in range(2)] for stream in range(2)], np.float32)
    blanks, zeros = np.full(2, session.spec.decoding.blank_id, np.int32), np.zeros((1, 2, 1), np.float32)
    scores, states = score(session, frames, blanks, (zeros, zeros))
    assert (scores[0].argmax(-1) == session.spec.decoding.blank_id).all()
    assert scores[1].argmax(-1).tolist() == [3, session.spec.decoding.blank_id]  # not on the second frame before the first
    assert all(np.isfinite(part).all() for part in states)
