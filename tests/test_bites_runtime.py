"""Laws of the runtime, each at the one place where a fault would hide. None needs a model."""

from types import SimpleNamespace

import numpy as np
import pytest
from passes import windows

from nemoport import transcription
from nemoport.beam import Beam, BeamSearch
from nemoport.beam_hypotheses import BeamHypothesis
from nemoport.caches import NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.chunker import OfflineChunker
from nemoport.frontend import LogMel, LogMelStream, mel_filterbank
from nemoport.hotwords import Hotwords
from nemoport.inputs import Samples
from nemoport.long_audio import Timed, merge
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec, StreamingSpec

RATE_HZ = 100  # of the recordings below: a low one, so that hours are short arrays
LONGEST_S = 40.0  # of a pass
SPEC: dict = dict(sample_rate_hz=16000, n_mels=8, preemphasis=0.97, log_guard=2.0**-24, normalize="NA")


class Listener:
    """Stands for a stream of an offline model: it hears the samples that are not zero as tokens, at their times."""

    def __init__(self):
        self.samples, self.chunks, self.tokens, self.token_seconds = [], [], [], []
        self.lookahead = None

    def timed(self):
        n = len(self.tokens)
        return Timed(tuple(self.tokens), tuple(self.token_seconds), (0.16,) * n, (1.0,) * n)

    def push(self, samples):
        self.samples.append(samples.copy())

    def close(self):
        self.chunks.append(np.concatenate(self.samples))
        assert len(self.chunks[0]) <= LONGEST_S * RATE_HZ


def advance(session, streams):
    for listener in streams:
        for samples in [listener.chunks.pop()] if listener.chunks else []:
            at = np.flatnonzero(samples)
            listener.tokens, listener.token_seconds = samples[at].astype(int).tolist(), (at / RATE_HZ).tolist()


def transcribed(recordings, monkeypatch, **options):
    monkeypatch.setattr(transcription, "advance", advance)
    spec = SimpleNamespace(streaming=None, frontend=SimpleNamespace(sample_rate_hz=RATE_HZ), frame_seconds=0.08)
    requests = [(name, Samples(samples), Listener) for name, samples in recordings]
    done = transcription.transcribe(SimpleNamespace(spec=spec), requests, **options)
    return {recording.id: recording for recording in done}


def spoken(rng, seconds, distinct):
    """A recording, and the places of its words: one to three of them a second, drawn at random."""
    samples = np.zeros(round(seconds * RATE_HZ), np.float32)
    at = np.cumsum(rng.integers(45, 140, round(3 * seconds)))
    at = at[at < len(samples)]
    samples[at] = 1 + (np.arange(len(at)) if distinct else rng.integers(0, 2, len(at)))
    return samples, at


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("seconds", [39.99, 40, 40.01, 55, 64.2, 1000.03])
@pytest.mark.parametrize(("streams", "packet"), [(1, 0), (3, 777)])
def test_windows_of_an_offline_model_say_what_one_pass_says(seconds, distinct, streams, packet, monkeypatch):
    """Every word once, at its own time, of recordings in one pass or in windows, alone or in a batch, in any packets."""
    rng = np.random.default_rng(round(seconds * 100) + distinct)
    recordings = {name: spoken(rng, length, distinct) for name, length in (("a", seconds), ("b", 17.0), ("c", 71.5), ("d", 0.2))}
    samples = [(name, samples) for name, (samples, _) in recordings.items()]
    found = transcribed(samples, monkeypatch, pass_s=LONGEST_S, streams=streams, packet_samples=packet)
    for name, (samples, at) in recordings.items():
        tokens = found[name].tokens
        assert tokens.tokens == tuple(samples[at].astype(int)), name
        assert tokens.seconds == pytest.approx(at / RATE_HZ) and set(tokens.durations) <= {0.16}
        expected = [(0.0, len(samples) / RATE_HZ)]
        if len(samples) > LONGEST_S * RATE_HZ:
            expected = windows(len(samples) / RATE_HZ, LONGEST_S, transcription.OVERLAP_S)
        assert [start for start, _ in found[name].parts] == pytest.approx([start for start, _ in expected])


@pytest.mark.parametrize(("apart", "tokens"), [(0.0, (1, 8)), (0.39, (1, 8)), (0.41, (1, 1, 8)), (0.9, (1, 1, 8))])
def test_one_word_is_near_in_time(apart, tokens):
    """Both windows say 1, on either side of the middle of the overlap: one word if the times are near, else two."""
    before, after = (
        Timed((1, 9), (23.9, 28.0), (0.08,) * 2, (1.0,) * 2),
        Timed((1, 8), (3.9 + apart, 7.9), (0.08,) * 2, (1.0,) * 2),
    )
    assert merge([(0.0, before), (20.0, after)]).tokens == tokens


class Buffer:
    """A caller's one buffer, filled anew for each packet, and filled with another sound behind it."""

    def __init__(self):
        self.samples = np.empty(1000, np.float32)

    def packets(self, samples, rng):
        at = 0
        while at < len(samples):
            size = min(int(rng.integers(1, 1001)), len(samples) - at)
            packet = self.samples[:size]
            packet[:] = samples[at : at + size]
            yield packet
            packet[:] = 0.5
            at += size


@pytest.mark.parametrize("seed", range(3))
def test_an_offline_model_keeps_no_buffer_of_its_caller(seed):
    frontend = FrontendSpec(**SPEC, n_fft=512, win_samples=400, hop_samples=160)
    spec = ModelSpec("offline-rnnt", frontend, DecodingSpec(2, 1, 1, 1, 10), offline=OfflineSpec(1, 1, 1, 8))
    rng, bank = np.random.default_rng(seed), mel_filterbank(frontend)
    samples = rng.standard_normal(8000).astype(np.float32) * 0.1
    chunker = OfflineChunker(spec, bank, None, "full")
    for packet in Buffer().packets(samples, rng):
        assert not chunker.feed(packet)
    (chunk,) = chunker.finish()
    assert np.array_equal(chunk.mel, LogMel(frontend, bank).whole(samples))


LENGTHS = (0, 1, 159, 160, 161, 319, 320, 4319, 4320, 4321)


@pytest.mark.parametrize("window", [162, 320, 321, 322, 400, 512])
@pytest.mark.parametrize("hop", [80, 128, 160])
def test_frames_of_any_window_and_hop_come_once(window, hop):
    """After each packet, frames that are valid and complete; at the end those of the whole, bit for bit. A frame is valid once
    its hop is complete, which a short window does not wait for: 4319 samples with 20 ms windows."""
    spec = FrontendSpec(**SPEC, n_fft=512, win_samples=window, hop_samples=hop)
    bank, rng = mel_filterbank(spec), np.random.default_rng(window + hop)
    samples, whole = rng.standard_normal(LENGTHS[-1]).astype(np.float32), LogMel(spec, bank)
    for length in LENGTHS:
        stream, frames = LogMelStream(spec, bank), []
        for packet in Buffer().packets(samples[:length], rng):
            frames.append(stream.feed(packet))
        assert sum(part.shape[1] for part in frames) <= length // hop
        assert np.array_equal(np.concatenate([*frames, stream.finish()], 1), whole.whole(samples[:length])), length


LAYERS = StreamingSpec(
    n_layers=2, d_model=4, n_heads=2, left_context_enc_frames=3, lookaheads=(0, 1), conv_cache_frames=2, subsampling_factor=8,
    pre_encode_cache_mel_frames=9,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [KvCaches, NemoCaches])
def test_streams_in_any_order_keep_their_caches(kind, seed):
    """Batches of any streams in any order: each stream's caches are those that it has alone."""
    rng, n = np.random.default_rng(seed), 4
    alone = [kind.initial(LAYERS, 1) for _ in range(n)]
    rows = kind.initial(LAYERS, n).rows()
    for _ in range(12):
        members = rng.permutation(n)[: rng.integers(1, n + 1)]
        if seed % 2:  # all of them, so that only the order differs
            members = rng.permutation(n)
        batch = kind.stack([rows[m] for m in members])
        fed = batch.feeds()
        made = [new_outputs(kind, rng, alone[m]) for m in members]
        for at, m in enumerate(members):
            for name, array in alone[m].feeds().items():
                axis = batch_axis(kind, name)
                assert np.array_equal(np.take(fed[name], [at], axis), array), name
            alone[m] = alone[m].advance(made[at])
        joined = [np.concatenate(parts, 1 if kind is KvCaches else 0) for parts in zip(*made, strict=True)]
        for m, row in zip(members, batch.advance(joined).rows(), strict=True):
            rows[m] = row


def batch_axis(kind, name):
    return 1 if kind is KvCaches and name != "cache_len" else 0


def new_outputs(kind, rng, caches):
    """What a graph gives behind the caches of one stream: the frames of a chunk in `kv`, whole caches in `nemo`."""
    feeds = caches.feeds()
    if kind is NemoCaches:
        return [
            rng.integers(0, 9, array.shape) if name.endswith("len") else normal(rng, array.shape) for name, array in feeds.items()
        ]
    shapes = KvCaches.shapes(LAYERS, 1)
    return [normal(rng, (2, *shape[1:])) for name, shape in shapes.items() if name != "cache_len"]


def normal(rng, shape):
    return rng.standard_normal(shape).astype(np.float32)


PIECES = ["\u2581new", "\u2581york", "\u2581news", "s"]


def beam_of(*paths, normalize=False):
    """A beam whose paths, as (tokens, score without a boost), were all found with the hotword "new york"."""
    hotwords = Hotwords(PIECES, ["new york"], 1.0)
    found = []
    for tokens, score in paths:
        match = hotwords.start
        for token in tokens:
            score, match = score + hotwords.gains(match)[token], hotwords.advance(match, token)
        found.append(BeamHypothesis(tuple(tokens), (0,) * len(tokens), (0,) * len(tokens), (1.0,) * len(tokens), score, 1, match))
    search = BeamSearch(4, hotwords=hotwords, normalize=normalize)
    found.sort(key=lambda path: path.score, reverse=True)
    return Beam(search, DecodingSpec(len(PIECES), 1, 1, 1, 10), found, {})


def test_a_beam_that_ends_within_a_phrase_has_no_boost_of_it():
    """ "news" is likelier than "new"; the boost that "york" might still earn leads only until the stream ends."""
    half = beam_of([[0], -2.0], [[2], -1.5])
    assert half.paths[0].tokens == (0,) and half.tokens == [2]
    assert half.n_best == [([2], pytest.approx(-1.5)), ([0], pytest.approx(-2.0))]
    whole = beam_of([[0, 1], -3.0], [[2, 1], -1.5])
    assert whole.n_best == [([0, 1], pytest.approx(-1.0)), ([2, 1], pytest.approx(-1.5))]


@pytest.mark.parametrize("phrase", ["\u05e9\u05dc\u05d5\u05dd", "art", "\u00e9t\u00e9", "\u043c\u0438\u0440"])
@pytest.mark.parametrize("ending", ["\u05d9\u05dd", "s", "\u00e9", "\u0430"])
def test_a_phrase_within_a_longer_word_is_not_boosted(phrase, ending):
    """Letters of any script go on with a word, also those whose bytes are no ASCII."""
    pieces = ["\u2581" + phrase, ending, "\u2581" + ending, "."]
    hotwords = Hotwords(pieces, [phrase], 1.0)

    def boost(tokens):
        match, total = hotwords.start, 0.0
        for token in tokens:
            total, match = total + hotwords.gains(match)[token], hotwords.advance(match, token)
        return total + hotwords.end(match)

    assert (boost([0]), boost([0, 2]), boost([0, 3])) == (1, 1, 1)
    assert (boost([0, 1]), boost([0, 1, 2]), boost([0, 1, 3])) == (0, 0, 0)
