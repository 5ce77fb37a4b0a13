"""Beam search: against NeMo's own `maes` on the same encoder frames, and against the sum over all paths of a lattice whose
scores are known. Chunks and batches change nothing."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nemoport import beam as beam_module
from nemoport.artifact import Artifact
from nemoport.beam import Beam, BeamSearch, beam_search
from nemoport.confidence import log_softmax
from nemoport.decode import GreedyState
from nemoport.errors import UsageError
from nemoport.events import EventSpec
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.recognizer import Recognizer
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec
from nemoport.speech.corpus import read_corpus
from nemoport.stream import Stream
from nemoport.validate import nemo, nemo_runs

REFERENCE = Path(__file__).parent.parent / "reference"


class Lattice:
    """A session with random scores that depend on the frame and on all tokens so far, in a vocabulary of two and blank.
    The state is the history as a number. `sharp` makes some paths much likelier than others."""

    def __init__(self, durations=(), sharp=1.0, seed=0, events=None):
        self.decoding = DecodingSpec(2, 1, 1, 1, 10, durations)
        front_end = FrontendSpec(16000, 2, 4, 4, 2, 0.0, 1.0, "per_feature")
        kind = "offline-tdt" if durations else "offline-rnnt"
        self.spec = ModelSpec(kind, front_end, self.decoding, offline=OfflineSpec(1, 1, 1, 8), events=events)
        self.sharp, self.seed = sharp, seed

    def scores(self, frame, history):
        random = np.random.default_rng([self.seed, int(frame), int(history)])
        return self.sharp * random.standard_normal(self.decoding.n_scores)

    def step(self, frames, tokens, state):
        history = np.where(tokens == self.decoding.blank_id, state[0][0, :, 0], state[0][0, :, 0] * 3 + tokens + 1)
        scores = [[self.scores(f[0], h) for f in row] for row, h in zip(frames, history, strict=True)]
        after = history.astype(np.float32)[None, :, None]
        return np.array(scores, np.float32), (after, after)


def frames_of(n_frames, first=0):
    return np.arange(first, first + n_frames, dtype=np.float32)[None, :, None]


def search(session, n_frames, chunk=None, **options):
    beam = Beam.initial(BeamSearch(**options), session.decoding)
    for first in range(0, n_frames, chunk or n_frames):
        n = min(chunk or n_frames, n_frames - first)
        beam_search(session, frames_of(n, first), np.array([n]), [beam])
    return beam


def all_paths(session, n_frames, steps):
    """Tokens -> probability of all paths that say them with at most `steps` tokens a frame, each frame's last one before a
    blank: the definition of the search when nothing is pruned."""
    hops, blank = session.decoding.durations or (0,), session.decoding.blank_id
    shortest = min((h for h in hops if h), default=1)
    total: dict[tuple, float] = {}

    def walk(frame, said, tokens, history, probability):
        if frame >= n_frames:
            total[tokens] = total.get(tokens, 0.0) + probability
            return
        scores = session.scores(frame, history).astype(np.float32).astype(np.float64)
        token_p = np.exp(log_softmax(scores[: blank + 1]))
        hop_p = np.exp(log_softmax(scores[blank + 1 :])) if session.decoding.durations else [1.0]
        if said == steps:
            hop = max(range(len(hops)), key=lambda i: hop_p[i])
            hop = hop if hops[hop] or len(hops) == 1 else hops.index(shortest)
            return walk(frame + (hops[hop] or 1), 0, tokens, history, probability * token_p[blank] * hop_p[hop])
        for token, hop in product(range(blank + 1), range(len(hops))):
            p = probability * token_p[token] * hop_p[hop]
            if token == blank:
                walk(frame + (hops[hop] or shortest), 0, tokens, history, p)
            elif token in session.spec.resetting:
                walk(frame + 1, 0, (*tokens, token), 0, p)
            else:
                on = frame + hops[hop]
                walk(on, 0 if hops[hop] else said + 1, (*tokens, token), history * 3 + token + 1, p)

    walk(0, 0, (), 0, 1.0)
    return total


def by_tokens(beam):
    """TDT paths that end at different frames behind the end are one text."""
    total: dict[tuple, float] = {}
    for tokens, score in beam.n_best:
        total[tuple(tokens)] = total.get(tuple(tokens), 0.0) + math.exp(score)
    return total


WIDE = dict(width=3000, gamma=1e9, prefixes=False, normalize=False)


def assert_all_paths(session, frames=3, steps=2):
    wanted, found = all_paths(session, frames, steps), by_tokens(search(session, frames, steps=steps, **WIDE))
    assert found.keys() == wanted.keys()
    for tokens, probability in wanted.items():
        assert found[tokens] == pytest.approx(probability, rel=1e-5)


@pytest.mark.parametrize("durations", [(), (0, 1, 2), (1, 3)])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_wide_enough_is_exhaustive(durations, steps):
    assert_all_paths(Lattice(durations, seed=steps), 3, steps)


@pytest.mark.parametrize("durations", [(), (0, 1, 2)])
def test_a_token_that_resets_ends_its_frame_and_the_history(durations):
    assert_all_paths(Lattice(durations, seed=7, events=EventSpec(1)), 4, 2)


def test_a_search_that_does_not_merge_is_noticed(monkeypatch):
    monkeypatch.setattr(beam_module, "merged", lambda paths: sorted(paths, key=lambda p: p.score, reverse=True))
    with pytest.raises(AssertionError):
        best = {}
        for tokens, score in search(Lattice(), 3, steps=2, **WIDE).n_best:
            best.setdefault(tuple(tokens), math.exp(score))
        assert best == pytest.approx(all_paths(Lattice(), 3, 2), rel=1e-5)


def test_a_search_that_ignores_durations_is_noticed():
    session = Lattice((0, 1, 2))
    session.decoding = DecodingSpec(2, 1, 1, 1, 10)
    session.scores = lambda frame, history: Lattice((0, 1, 2)).scores(frame, history)
    found = by_tokens(search(session, 4, steps=2, **WIDE))
    wanted = all_paths(Lattice((0, 1, 2)), 4, 2)
    assert max(found, key=found.get) != max(wanted, key=wanted.get)


@pytest.mark.parametrize("events", [None, EventSpec(1)], ids=["", "events"])
@pytest.mark.parametrize("durations", [(), (0, 1, 2)])
def test_prefixes_count_a_path_once(durations, events):
    """What the prefix search adds is never more than all paths have. NeMo's for TDT, which expands as well, is."""

    def excess(beam, wanted):
        return max(p / wanted[tokens] for tokens, p in by_tokens(beam).items() if tokens in wanted)

    session, options = Lattice(durations, events=events), WIDE | dict(prefixes=True)
    wanted = all_paths(session, 3, 3)  # a prefix's token, and two more
    once = search(session, 3, **options)
    assert excess(once, wanted) < 1 + 1e-5
    if events:  # nor less, of a token that no prefix search adds
        assert by_tokens(once)[1,] == pytest.approx(wanted[1,], rel=1e-5)
    twice = Beam.initial(BeamSearch(**options), session.decoding)
    twice._counted = lambda paths: set()
    beam_search(session, frames_of(3), np.array([3]), [twice])
    assert excess(twice, wanted) > 1.01


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 4)])
def test_chunks_change_nothing(durations):
    session = Lattice(durations, sharp=3.0)
    whole = search(session, 40, width=3)
    assert len(whole.tokens) > 5
    for chunk in (1, 2, 7, 14):
        parts = search(session, 40, chunk, width=3)
        assert (parts.n_best, parts.token_frames) == (whole.n_best, whole.token_frames)
        assert (parts.token_durations, parts.frame) == (whole.token_durations, 40)


def test_certain_tokens_never_change():
    session, beam = Lattice(sharp=3.0), Beam.initial(BeamSearch(4), Lattice().decoding)
    seen, revised = [], 0
    for frame in range(60):
        before = beam.tokens
        beam_search(session, frames_of(1, frame), np.array([1]), [beam])
        assert beam.tokens[: len(seen)] == seen
        revised += beam.tokens[: len(before)] != before
        seen = beam.tokens[: beam.n_final]
    assert revised and len(seen) > 20 and max(len(path.tokens) for path in beam.paths) < 20


class Undecided(Lattice):
    """Two tokens that are nearly as likely on some frames; on all others blank alone."""

    def __init__(self, spoken):
        super().__init__()
        self.spoken = spoken

    def scores(self, frame, history):
        return np.log([0.5, 0.49, 0.01] if frame in self.spoken else [1e-9, 1e-9, 1.0])


@pytest.mark.parametrize("spoken", [{3}, {3, 10}, set(range(0, 60, 9))])
@pytest.mark.parametrize("chunk", [1, 7])
def test_text_of_some_age_is_final(spoken, chunk):
    """Also in silence, where all paths stay as likely as they are. What is final keeps its tokens and their times."""
    session, age = Undecided(spoken), 12
    beam = Beam.initial(BeamSearch(4, final_enc_frames=age), session.decoding)
    final = []
    for end in range(chunk, 100, chunk):
        beam_search(session, frames_of(chunk, end - chunk), np.array([chunk]), [beam])
        timed = list(zip(beam.tokens, beam.token_frames, strict=True))
        assert timed[: len(final)] == final
        final = timed[: beam.n_final]
        assert len(final) == len([f for f in beam.token_frames if f < end - age]) or beam.token_frames[len(final)] >= end - age
    assert len(beam.paths) == 1 and len(final) >= len(spoken)


def test_without_an_age_silence_decides_nothing():
    session = Undecided({3})
    assert search(session, 500, width=4).n_final == 0 < search(session, 500, width=4, final_enc_frames=12).n_final


def test_what_is_final_grows_no_further():
    """A path with a token more, as old, is dropped with the others: later audio would put it into text that was printed."""

    class Late(Lattice):
        def scores(self, frame, history):
            likely = {
                (3, 0): [0.98, 0.01, 0.01],
                (4, 1): [0.01, 0.49, 0.5],
                (40, 1): [0.1, 0.1, 0.8],
                (40, 5): [0.98, 0.01, 0.01],
            }
            return np.log(likely.get((int(frame), int(history)), [1e-9, 1e-9, 1.0]))

    unbound = search(Late(), 50, width=4, normalize=False)
    bound = search(Late(), 50, width=4, normalize=False, final_enc_frames=12)
    assert unbound.tokens == [0, 1, 0] and bound.tokens == [0] and bound.n_final == 1


def test_chunks_change_nothing_in_what_is_final():
    session = Lattice(sharp=3.0)
    whole = search(session, 60, width=3, final_enc_frames=5)
    for chunk in (1, 2, 7, 14):
        assert search(session, 60, chunk, width=3, final_enc_frames=5).n_best == whole.n_best


def test_words_are_final_a_second_after_speech(build, eval_corpus):
    """In a live stream with a beam. Its text is what the file gives."""
    recognizer = Recognizer.open(build / "fp32", 1, threads=1, beam=4)
    stream, silence = recognizer.stream(), np.zeros(16000, np.float32)
    for samples in (eval_corpus.utterances[0].samples(), silence, silence):
        stream.feed(samples)
    assert stream.n_final == len(stream.tokens) > 0
    assert Recognizer.open(build / "fp32", 1, threads=1, beam=4)._search == BeamSearch(4, final_enc_frames=12)


def test_a_call_of_the_decoder_for_all_paths():
    """At most one to begin a frame, and one for each token on it; each prefix once in a call."""
    session, asked = Lattice(sharp=3.0), []
    step = session.step
    session.step = lambda frames, tokens, state: (
        asked.append(list(zip(tokens, state[0][0, :, 0], strict=True))) or step(frames, tokens, state)
    )
    beam = search(session, 12, width=4)
    assert len(asked) <= 12 * 3 and max(map(len, asked)) > 4 and len(beam.predictions) <= 4
    assert all(len(set(rows)) == len(rows) for rows in asked)


def test_a_batch_of_streams_does_not_mix():
    session = Lattice((0, 1, 2), sharp=3.0)
    lengths = np.array([30, 0, 7, 19])
    beams = [Beam.initial(BeamSearch(width), session.decoding) for width in (4, 4, 2, 3)]
    batch = np.stack([frames_of(30, first)[0] for first in (0, 100, 200, 300)])
    beam_search(session, batch, lengths, beams)
    for first, n, width, found in zip((0, 100, 200, 300), lengths, (4, 4, 2, 3), beams, strict=True):
        alone = Beam.initial(BeamSearch(width), session.decoding)
        beam_search(session, frames_of(n, first), np.array([n]), [alone])
        assert (found.n_best, found.token_frames, found.frame) == (alone.n_best, alone.token_frames, n)


@pytest.mark.parametrize(
    "option",
    [dict(width=0), dict(width=-3), dict(width=2, steps=0), dict(width=2, gamma=-1.0), dict(width=2, final_enc_frames=-1)],
)
def test_what_cannot_be_searched_is_refused(option):
    with pytest.raises(UsageError, match="or more"):
        BeamSearch(**option)


def nemo_n_best(model, frames, width, alpha):
    """NeMo's n best: (tokens, score, its timestamps); and whether its prefix search changed a score."""
    import torch
    from omegaconf import open_dict

    decoding = model.cfg.decoding.copy()
    with open_dict(decoding):
        decoding.strategy, decoding.beam.beam_size, decoding.beam.return_best_hypothesis = "maes", width, False
        decoding.beam.maes_prefix_alpha, decoding.beam.maes_expansion_beta = alpha, 2
    with nemo.quiet():
        model.change_decoding_strategy(decoding, verbose=False)
    with nemo.exact(model):
        (found,) = model.decoding.decoding(
            encoder_output=torch.from_numpy(frames.T[None].copy()), encoded_lengths=torch.tensor([len(frames)])
        )[0]
    return [(h.y_sequence.tolist(), float(h.score), [int(t) for t in h.timestamp]) for h in found.n_best_hypotheses]


def assert_nemos(beam, theirs, durations):
    assert [tokens for tokens, _ in beam.n_best] == [tokens for tokens, _, _ in theirs]
    np.testing.assert_allclose([score for _, score in beam.n_best], [score for _, score, _ in theirs], atol=1e-4)
    # Of a TDT token NeMo's greedy gives the frame on which it came out, as we do, and its beam the frame that is next.
    after = [f + (d if durations else 0) for f, d in zip(beam.token_frames, beam.token_durations, strict=True)]
    assert after == theirs[0][2]


def ours(session, frames, **options):
    beam = Beam.initial(BeamSearch(**options), session.spec.decoding)
    beam_search(session, frames[None], np.array([len(frames)]), [beam])
    return beam


@pytest.fixture(scope="module")
def rnnt(reference_checkpoint, build, eval_corpus):
    """NeMo's model, our session, NeMo's encoder frames of a few utterances."""
    model = nemo.restore(reference_checkpoint)
    with nemo.exact(model):
        frames = [nemo_runs.offline(model, u.samples(), 13).frames for u in eval_corpus.utterances[::2]]
    return model, OnnxSession.open(Artifact.open(build / "fp32"), threads=1), frames


@pytest.fixture(scope="module")
def tdt(tmp_path_factory):
    pytest.importorskip("torch")
    checkpoint, folder = read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo")), tmp_path_factory.mktemp("tdt")
    export_checkpoint(checkpoint, folder)
    model = nemo.restore(checkpoint)
    with nemo.exact(model):
        utterances = read_corpus(REFERENCE / "audio" / "eval-tdt.jsonl", 16000).utterances[::40]
        frames = [nemo_runs.offline(model, u.samples(), None).frames for u in utterances]
    return model, OnnxSession.open(Artifact.open(folder / "fp32"), threads=1), frames


@pytest.mark.parametrize("width", [2, 4])
def test_rnnt_equals_nemos(width, rnnt):
    model, session, utterances = rnnt
    for frames in utterances:
        assert_nemos(ours(session, frames, width=width), nemo_n_best(model, frames, width, 1), ())


@pytest.mark.parametrize("width", [2, 4])
def test_tdt_equals_nemos_without_prefix_search(width, tdt):
    model, session, utterances = tdt
    for frames in utterances:
        theirs = nemo_n_best(model, frames, width, 0)
        assert_nemos(ours(session, frames, width=width, prefixes=False), theirs, (0, 1, 2, 3, 4))


@pytest.mark.parametrize("width", [2, 4])
def test_tdt_differs_from_nemos_by_what_that_counts_twice(width, tdt, monkeypatch):
    """NeMo's prefix search adds a prefix's path, and its expansion adds the same path again. Doing that on purpose gives
    NeMo's figures; without, they differ."""
    model, session, utterances = tdt
    theirs = [nemo_n_best(model, frames, width, 1) for frames in utterances]
    once = [ours(session, frames, width=width).n_best[0][1] for frames in utterances]
    assert np.abs(np.array(once) - [n_best[0][1] for n_best in theirs]).max() > 0.01
    monkeypatch.setattr(Beam, "_counted", lambda self, paths: set())
    for frames, n_best in zip(utterances, theirs, strict=True):
        assert_nemos(ours(session, frames, width=width), n_best, (0, 1, 2, 3, 4))


def test_chunks_and_batches_of_a_model(rnnt):
    """The decoder sums in another order for another batch, so scores are near, not equal."""
    _, session, utterances = rnnt
    longest = max(map(len, utterances))
    batch = np.stack([np.pad(f, ((0, longest - len(f)), (0, 0))) for f in utterances])
    lengths = np.array([len(f) for f in utterances])
    beams = [Beam.initial(BeamSearch(4), session.spec.decoding) for _ in utterances]
    for start in range(0, longest, 7):
        beam_search(session, batch[:, start : start + 7], np.clip(lengths - start, 0, min(7, longest - start)), beams)
    for frames, found in zip(utterances, beams, strict=True):
        alone = ours(session, frames, width=4)
        assert (found.tokens, found.token_frames) == (alone.tokens, alone.token_frames)
        np.testing.assert_allclose([s for _, s in found.n_best], [s for _, s in alone.n_best], atol=1e-4)


def test_recognizer_searches(build, eval_corpus):
    recognizer = Recognizer.open(build / "fp32", 1, threads=1, beam=4)
    samples = [u.samples() for u in eval_corpus.utterances[:3]]
    alone = [next(recognizer.transcribe([("", s)])) for s in samples]
    together = sorted(recognizer.transcribe([(str(i), s) for i, s in enumerate(samples)], streams=3), key=lambda h: h.id)
    assert [h.tokens for h in alone] == [h.tokens for h in together] and all(h.text for h in alone)
    for hypothesis, audio in zip(alone, samples, strict=True):
        stream, returned = recognizer.stream(), []
        for at in range(0, len(audio), 3200):
            returned += stream.feed(audio[at : at + 3200])
            assert stream.tokens[: stream.n_final] == returned
        returned += stream.finish()
        assert tuple(returned) == tuple(stream.tokens) == hypothesis.tokens
        assert len(stream.token_seconds) == len(returned) and stream.token_seconds == list(hypothesis.token_seconds)


def test_a_width_of_one_is_greedy(build):
    stream = Recognizer.open(build / "fp32", 1, beam=1).stream()
    assert isinstance(stream, Stream) and isinstance(stream.decoded, GreedyState)
    with pytest.raises(UsageError, match="width 0"):
        Recognizer.open(build / "fp32", 1, beam=0)
