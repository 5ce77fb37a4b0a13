"""Laws that hold for any input, tried by hypothesis: packets, batches, windows, scores, intervals, frames. None needs a model."""

from functools import partial
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import windows
from scipy.stats import bootstrap
from scrambler import BANK, STREAMING, Scrambler, spoken

from nemoport import score
from nemoport.beam import BeamSearch
from nemoport.caches import NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.frontend import LogMel, LogMelStream, mel_filterbank
from nemoport.long_audio import Timed, merge
from nemoport.spec import FrontendSpec
from nemoport.speech.corpus import Corpus, Utterance
from nemoport.stream import Stream, advance
from nemoport.validate.oracle import sample_positions
from nemoport.validate.runs import CorpusRunner

few = settings(max_examples=60, derandomize=True, deadline=None, database=None)
# onnxruntime or another library flushes subnormal numbers to zero in its process, which hypothesis refuses.
floats = partial(st.floats, allow_subnormal=False)


def shown(stream):
    decoded = stream.decoded
    return stream.tokens, list(decoded.token_frames), list(decoded.token_durations), stream.n_final


lengths = st.lists(st.integers(0, 900), min_size=1, max_size=3)


@pytest.mark.parametrize("beam", [False, True], ids=["greedy", "beam"])
@pytest.mark.parametrize("kind", [NemoCaches, KvCaches, None], ids=["nemo", "kv", "offline"])
@given(lengths=lengths, lookahead=st.sampled_from([0, 1, 3]), flush=st.sampled_from(["full", "nemo"]), order=st.integers(0, 999))
@settings(few, max_examples=25)
def test_packets_and_batches_of_any_split_and_order_give_the_same_tokens(kind, beam, lengths, lookahead, flush, order):
    session, search = Scrambler(kind), BeamSearch(2) if beam else None
    options = (lookahead, flush) if kind else (None, "full")

    def stream():
        return Stream(session, BANK, *options, search=search)

    audio = [spoken(i, length) for i, length in enumerate(lengths)]
    alone, frames = [stream() for _ in audio], [[] for _ in audio]
    for one, samples, found in zip(alone, audio, frames, strict=True):
        one.push(samples)
        one.close()
        while one.chunks:
            found += advance(session, [one])
    together, theirs = [stream() for _ in audio], [[np.zeros((0, 4))] for _ in audio]
    waiting, rng = list(audio), np.random.default_rng(order)
    while not all(one._closed for one in together) or any(one.chunks for one in together):
        for i in rng.permutation(len(audio)):
            if not together[i]._closed:
                size = rng.integers(0, 400)
                together[i].push(waiting[i][:size])
                waiting[i] = waiting[i][size:]
                if not len(waiting[i]):
                    together[i].close()
        members = rng.permutation(len(audio))[: rng.integers(1, len(audio) + 1)]
        for i, found in zip(members, advance(session, [together[i] for i in members]), strict=True):
            theirs[i].append(found)
    assert [shown(one) for one in together] == [shown(one) for one in alone]
    for own, other, length in zip(frames, theirs, lengths, strict=True):
        assert np.array_equal(np.concatenate([np.zeros((0, 4)), *own]), np.concatenate(other))
        assert own or length < 16 * 9  # a mel frame is 16 samples, and NeMo drops a rest of fewer than 8


class Spoken(Utterance):
    def samples(self):
        return spoken(int(self.id), round(self.seconds * self.sample_rate_hz))


@pytest.mark.parametrize("kind", [NemoCaches, KvCaches, None], ids=["nemo", "kv", "offline"])
@given(lengths=st.lists(st.integers(0, 900), min_size=1, max_size=7), at=st.integers(0, 2), streams=st.integers(1, 4))
@settings(few, max_examples=15)
def test_a_judged_run_is_that_of_each_utterance_alone(kind, lengths, at, streams):
    """By every flush rule; packets of every size go round."""
    session = Scrambler(kind)
    lookahead, rules = (STREAMING.lookaheads[at], ("full", "nemo")) if kind else (None, ("full",))
    rows = tuple(Spoken(f"{i}", Path(), "", length / 1600, "", 1600) for i, length in enumerate(lengths))
    done = []
    found = CorpusRunner(session, BANK, ["a", "b", "c"]).run(Corpus(Path(), rows), lookahead, streams, done.append)
    assert tuple(found) == rules and len(done) == len(rows) and done == sorted(done)
    assert done[-1] == pytest.approx(sum(lengths) / 1600)
    for offset, rule in enumerate(rules):
        assert [run.id for run in found[rule]] == [row.id for row in rows]
        for number, (run, row) in enumerate(zip(found[rule], rows, strict=True)):
            alone, frames = Stream(session, BANK, lookahead, rule), [np.zeros((0, 4), np.float32)]
            alone.push(row.samples())
            alone.close()
            while alone.chunks:
                frames += advance(session, [alone])
            frames = np.concatenate(frames)
            assert (list(run.tokens), list(run.token_frames)) == (alone.tokens, alone.decoded.token_frames)
            assert run.text == "".join("abc"[token] for token in run.tokens)
            assert run.enc_frames == len(frames)
            assert np.array_equal(run.sampled_frames, frames[sample_positions(len(frames), lookahead)])
            turn = number + (2 * at if kind else 0) + offset
            assert run.packet_ms == (1, 10, 37, 100, 560, 5000)[turn % 6]


@given(
    seconds=floats(0, 500),
    window=floats(1, 100),
    share=floats(0.01, 0.49),
)
@few
def test_windows_cover_a_recording_and_overlap(seconds, window, share):
    overlap = window * share
    parts = windows(seconds, window, overlap)
    assert parts[0][0] == 0 and parts[-1][1] == pytest.approx(seconds)
    if seconds <= window:
        assert parts == [(0.0, seconds)]
        return
    assert all(end - start == pytest.approx(window) for start, end in parts)
    for (start, end), (later, _) in zip(parts, parts[1:], strict=False):
        assert later > start and end - later >= overlap - 1e-6
    assert len(parts) == pytest.approx(np.ceil((seconds - window) / (window - overlap)), abs=1.001)


@given(
    gaps=st.lists(floats(0.5, 4), min_size=1, max_size=60),
    jitter=st.integers(0, 99),
    window=floats(20, 50),
)
@few
def test_windows_joined_have_each_word_once_in_order(gaps, jitter, window):
    """Each window finds every word that is whole within it, at most 0.1 s from its time, and a wrong one at each cut edge."""
    times, rng = np.cumsum(gaps), np.random.default_rng(jitter)
    parts = []
    for start, end in windows(float(times[-1]) + 1, window, 9.0):
        inside = [i for i, t in enumerate(times) if start <= t < end - 0.3]
        cut = [i for i, t in enumerate(times) if end - 0.3 <= t < end]
        at = [float(times[i] - start + rng.uniform(-0.1, 0.1)) for i in inside] + [float(times[i] - start) for i in cut]
        parts.append((start, Timed((*inside, *(1000 + i for i in cut)), tuple(at), (0.0,) * len(at), (1.0,) * len(at))))
    joined = merge(parts)
    whole = [token for token in joined.tokens if token < 1000]
    assert whole == sorted(set(whole))
    assert set(range(len(times))) - set(whole) <= {t - 1000 for t in joined.tokens if t >= 1000}
    assert all(abs(s - times[t % 1000]) < 0.11 for t, s in zip(joined.tokens, joined.seconds, strict=True))


words = st.lists(st.sampled_from(["a", "b", "co-op", "d'or", "\u00e9t\u00e9", "\u092e\u0947\u0930\u093e"]), max_size=8).map(
    " ".join
)


@given(pairs=st.lists(st.tuples(words, words), min_size=1, max_size=8))
@few
def test_scores_are_those_of_jiwer(pairs):
    counts = score.count_all(*map(list, zip(*pairs, strict=True)))
    for (reference, hypothesis), found in zip(pairs, counts, strict=True):
        reference, hypothesis = (text.replace("-", " ") for text in (reference, hypothesis))
        assert found.words == len(reference.split())
        if reference:
            assert found.errors == pytest.approx(jiwer.wer(reference, hypothesis) * found.words)
        else:
            assert (found.substitutions, found.deletions, found.insertions) == (0, 0, len(hypothesis.split()))
        spaced = score.count_words(reference, hypothesis, "ja")
        letters = [text.replace(" ", "") for text in (reference, hypothesis)]
        assert spaced.words == len(letters[0])
        assert not letters[0] or spaced.errors == pytest.approx(jiwer.cer(*letters) * spaced.words)
    total = sum(found.words for found in counts)
    rate = score.wer_percent(counts)
    assert np.isnan(rate) if not total else rate == pytest.approx(100 * sum(found.errors for found in counts) / total)


@given(seed=st.integers(0, 2**32 - 1), utterances=st.integers(12, 60), conditions=st.integers(1, 3))
@settings(few, max_examples=5)
def test_the_interval_is_that_of_scipys_bootstrap(seed, utterances, conditions):
    rng = np.random.default_rng(seed)
    lengths = np.repeat(rng.integers(3, 30, (utterances, 1)), conditions, 1)
    own, base = rng.poisson(0.1 * lengths), rng.poisson(0.08 * lengths)
    rows = [[[score.WordCounts(int(w), int(e), 0, 0) for w, e in zip(*r, strict=True)] for r in zip(lengths, e, strict=True)]
            for e in (own, base)]  # fmt: skip
    found = score.wer_difference(*rows)

    def points(added, counted, axis):
        return 100 * added.sum(axis) / counted.sum(axis)

    added, counted = (own - base).sum(1), lengths.sum(1)
    data = (added, counted)
    theirs = bootstrap(data, points, paired=True, vectorized=True, method="percentile", n_resamples=9999, rng=seed)
    low, high = theirs.confidence_interval
    assert found.value == pytest.approx(points(added, counted, 0))
    assert (found.lower, found.upper) == pytest.approx((low, high), abs=0.06 * (high - low))


@given(
    fft=st.sampled_from([32, 64, 128, 256]), data=st.data(), length=st.integers(0, 1500), emphasis=st.sampled_from([0.0, 0.97])
)
@settings(few, max_examples=25)
def test_frames_of_any_window_and_hop_are_numpys(fft, data, length, emphasis):
    window = data.draw(st.integers(4, fft))
    hop = data.draw(st.integers(1, window - 2))
    spec = FrontendSpec(8000, 8, fft, window, hop, emphasis, 2.0**-24, "NA")
    bank, samples = mel_filterbank(spec), spoken(length, length)
    found = LogMel(spec, bank).whole(samples)
    emphasised = samples - emphasis * np.concatenate([[0], samples[:-1]])[:length]
    padded = np.pad(emphasised, fft // 2)
    shape = np.zeros(fft)
    shape[(fft - window) // 2 : (fft - window) // 2 + window] = np.hanning(window)
    expected = [
        np.log(bank.astype(np.float64) @ np.abs(np.fft.rfft(padded[at : at + fft] * shape)) ** 2 + 2.0**-24)
        for at in range(0, length // hop * hop, hop)
    ]
    assert found.shape == (8, length // hop)
    assert np.allclose(found, np.array(expected).reshape(-1, 8).T, atol=2e-3)
    stream, at, parts = LogMelStream(spec, bank), 0, []
    while at < length:
        size = data.draw(st.integers(0, 700))
        parts.append(stream.feed(samples[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate([*parts, stream.finish()], 1), found)
