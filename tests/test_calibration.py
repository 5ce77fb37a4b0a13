"""The warm-cache reader, the range collectors and the calibration cache."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from quantizing import CALIBRATION, quiet

from nemoport.artifact import Artifact
from nemoport.caches import NemoCaches
from nemoport.calibration.cache import calibrate
from nemoport.calibration.gram import GramCollector
from nemoport.calibration.probe import Probe, ProbedSession
from nemoport.calibration.ranges import BINS, RangeCollector
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import ArtifactError, CorpusError, UsageError
from nemoport.progress import Step
from nemoport.quantize import build_variant
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import read_corpus

SHORT = StreamParameters(contexts_per_stream=1.5, silence_contexts=0.25)
TENSORS = [
    "/layers.0/norm_feed_forward1/LayerNormalization_output_0",
    "/layers.2/self_attn/Concat_output_0",
    "/layers.5/feed_forward2/Mul_output_0",
]


@pytest.fixture(scope="module")
def fp32(build):
    return Artifact.open(build / "fp32")


@pytest.fixture(scope="module")
def corpus(fp32):
    return read_corpus(CALIBRATION, fp32.spec.frontend.sample_rate_hz)


def streams_of(fp32, corpus, parameters=SHORT, utterances=4, plans=None):
    """Streams of the first utterances; plans: which of them, all by default."""
    corpus = replace(corpus, utterances=corpus.utterances[:utterances])
    streams = CalibrationStreams(corpus, fp32.spec, fp32.filterbank(), parameters)
    if plans is not None:
        streams.plans = tuple(streams.plans[i] for i in plans)
    return streams


def collect(fp32, streams, tensors=TENSORS):
    session, collector = ProbedSession(fp32, Probe(fp32.encoder, tensors, threads=1)), RangeCollector(tensors)
    for plan in streams.plans:
        for wanted in streams.run(session, plan):
            if wanted:
                collector.update(session.encoder.values)
    return collector


def exact_percentile(values, percentile):
    return np.percentile(values, percentile, method="inverted_cdf")  # a value that occurs, none in between


def test_every_lookahead_and_silence_are_streamed(fp32, corpus):
    plans = CalibrationStreams(corpus, fp32.spec, fp32.filterbank(), StreamParameters()).plans
    lookaheads = set(fp32.spec.streaming.lookaheads)
    spoken, narrow = ([p for p in plans if {s.kind for s in p.segments} == {kind}] for kind in ("speech", "telephone"))
    fading = [p for p in plans if p not in spoken and p not in narrow]
    assert {p.lookahead for p in spoken} == lookaheads == {p.lookahead for p in fading}
    assert sorted(p.lookahead for p in narrow) == sorted(lookaheads)
    assert {s.utterance for p in spoken for s in p.segments} == set(range(len(corpus.utterances)))  # all are read
    context_samples = 70 * 1280
    for plan in fading:
        kinds = [s.kind for s in plan.segments]
        assert kinds == ["speech", "silence", "noise", "speech"] and plan.collect_start
        assert all(s.samples > context_samples for s in plan.segments if s.kind in ("silence", "noise"))


def test_a_telephone_passes_its_band_only(fp32, corpus):
    """What the encoder is shown has no power outside 300 to 3400 Hz, and the speech's inside; it can be left out."""
    streams = streams_of(fp32, corpus)
    plan = next(p for p in streams.plans if p.segments[0].kind == "telephone")
    plain, transcribed = (streams.samples(replace(plan.segments[0], kind=kind)) for kind in ("speech", "telephone"))
    hz, power = np.fft.rfftfreq(len(plain), 1 / 16000), [np.square(np.abs(np.fft.rfft(x))) for x in (plain, transcribed)]
    inside = (hz > 400) & (hz < 3300)
    shares = [p[hz > 3600].sum() / p.sum() for p in power]
    assert shares[0] > 0.01 and shares[1] < shares[0] / 100
    assert 0.9 < power[1][inside].sum() / power[0][inside].sum() < 1.1
    without = streams_of(fp32, corpus, replace(SHORT, telephone=False))
    assert not [s for p in without.plans for s in p.segments if s.kind == "telephone"]
    assert without.plans == tuple(p for p in streams.plans if p.segments[0].kind != "telephone")


def test_iterating_twice_gives_the_same(fp32, corpus):
    streams = streams_of(fp32, corpus)
    for plan in (streams.plans[0], streams.plans[-1]):
        first, second = ([chunk.mel for chunk in streams.chunks(plan)] for _ in range(2))
        assert len(first) > 5 and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_chunks_before_the_caches_are_full_are_dropped(fp32, corpus):
    streams, session = streams_of(fp32, corpus), OnnxSession.open(fp32, threads=1)
    plan = next(p for p in streams.plans if p.lookahead == 6)
    assert list(streams.run(session, plan))[:12] == [False] * 10 + [True] * 2  # 10 chunks of 7 frames fill 70
    fading = next(p for p in streams.plans if p.lookahead == 6 and p.collect_start)
    assert all(streams.run(session, fading))


def test_streams_together_are_those_one_by_one(fp32, corpus):
    """In batches of one warm-up, at the longest lookahead; a stream that ends leaves the others as they are."""
    streams = streams_of(fp32, corpus)
    batch = [replace(plan, segments=plan.segments[:count]) for plan, count in zip(streams.together[-1][:2], (2, 4), strict=True)]
    session, summed = ProbedSession(fp32, Probe(fp32.encoder, TENSORS, threads=1)), []
    for runs in ([batch], [[plan] for plan in batch]):
        grams = GramCollector(TENSORS)
        for wanted in (w for one in runs for w in streams.run_together(session, one)):
            if wanted:
                grams.update(session.encoder.values)
        summed.append(grams)
    assert np.array_equal(summed[0].seen, summed[1].seen)
    for name in TENSORS:
        assert np.allclose(summed[0].grams[name], summed[1].grams[name], rtol=1e-3, atol=1e-3 * summed[1].grams[name].max())


def test_ranges_equal_brute_force(fp32, corpus):
    """Against every value of a run kept in memory, caches carried by hand."""
    streams = streams_of(fp32, corpus, plans=[0])
    collector = collect(fp32, streams)
    probe, kept = Probe(fp32.encoder, TENSORS, threads=1), {name: [] for name in TENSORS}
    caches = {name: np.zeros(s, np.float32) for name, s in NemoCaches.shapes(fp32.spec.streaming, 1).items()}
    caches["cache_last_channel_len"] = np.zeros(1, np.int64)
    for chunk in streams.chunks(streams.plans[0]):
        full = caches["cache_last_channel_len"][0] == 70
        feeds = {"audio_signal": chunk.mel[None], "length": np.array([chunk.length]), **caches}
        names = ["cache_last_channel_next", "cache_last_time_next", "cache_last_channel_next_len"]
        caches = dict(zip(caches, probe.run(names, feeds), strict=True))
        if full:
            for name, value in probe.values.items():
                kept[name].append(value.ravel())
    for name in TENSORS:
        values = np.concatenate(kept[name])
        extremes = collector.ranges("minmax")[name]
        assert (extremes.low, extremes.high) == (values.min(), values.max())
        clipped, width = collector.ranges("percentile", 99.9)[name], collector.bin_width(name)
        assert width < (values.max() - values.min()) / 512
        assert clipped.low == pytest.approx(-exact_percentile(-values, 99.9), abs=width)
        assert clipped.high == pytest.approx(exact_percentile(values, 99.9), abs=width)


def test_histograms_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    parts = [(rng.standard_t(3, 5000) * 10.0**k).astype(np.float32) for k in (-9, -3, 0, 2, 4)]
    parts.append(np.array([0.0, 1.0, -1.0, 1024.0, -1024.0], np.float32))  # on bin edges

    def histogram(order):
        collector = RangeCollector(["x"])
        for i in order:
            collector.update({"x": parts[i]})
        return collector

    up, down = histogram(range(6)), histogram(reversed(range(6)))
    whole = RangeCollector(["x"])
    whole.update({"x": np.concatenate(parts)})
    for other in (down, whole):
        assert all(np.array_equal(a, other.to_arrays()[k]) for k, a in up.to_arrays().items())
    assert up.counts.sum() == sum(len(p) for p in parts)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentile_equals_numpy_within_a_bin(percentile):
    values = np.random.default_rng(1).standard_t(3, 200_000).astype(np.float32)
    collector = RangeCollector(["x"])
    for part in np.split(values, 40):
        collector.update({"x": part})
    found, width = collector.ranges("percentile", percentile)["x"], collector.bin_width("x")
    assert width <= 4 * np.abs(values).max() / BINS
    assert found.high == pytest.approx(exact_percentile(values, percentile), abs=width)
    assert found.low == pytest.approx(-exact_percentile(-values, percentile), abs=width)
    assert collector.ranges("percentile", 100.0) == collector.ranges("minmax")


def test_collector_refuses(fp32):
    with pytest.raises(CorpusError, match="nothing"):
        RangeCollector(["x"]).ranges("minmax")
    for bad in (np.nan, np.inf):
        with pytest.raises(ArtifactError, match="not finite"):
            RangeCollector(["x"]).update({"x": np.array([0.0, bad], np.float32)})
    with pytest.raises(UsageError, match="minmax or percentile"):
        RangeCollector(["x"]).ranges("entropy")
    with pytest.raises(UsageError, match="above 50"):
        RangeCollector(["x"]).ranges("percentile", 0.1)


def test_too_little_audio_is_refused(fp32, corpus):
    with pytest.raises(CorpusError, match="22.4 s"):
        streams_of(fp32, corpus, StreamParameters(), utterances=2)


def test_cold_ranges_differ_from_warm_ones(fp32, corpus):
    warm = collect(fp32, streams_of(fp32, corpus, plans=[1])).ranges("minmax")
    cold = collect(fp32, streams_of(fp32, corpus, replace(SHORT, cold=True), plans=[1])).ranges("minmax")
    changed = [abs(cold[t].high - warm[t].high) / warm[t].high for t in TENSORS]
    assert max(changed) > 0.05


def test_calibration_is_reused_and_records_the_audio(fp32, corpus, tmp_path):
    streams = streams_of(fp32, corpus, plans=[0, 4])
    lines = []
    first = calibrate(fp32, streams, TENSORS, tmp_path, collect=RangeCollector, progress=lines.append, threads=1)
    assert lines == [Step("calibration", done, 2, "streams") for done in (0, 1, 2)]
    again = calibrate(fp32, streams, TENSORS, tmp_path, collect=RangeCollector, progress=lines.append, threads=1)
    assert len(lines) == 3  # nothing ran
    assert again.collector.ranges("minmax") == first.collector.ranges("minmax")
    record = json.loads((first.folder / "calibration.json").read_text())
    assert record["audio_sha256"] == [u.sha256 for u in streams.corpus.utterances]
    assert (record["corpus_digest"], record["parent_digest"]) == (streams.corpus.digest, fp32.manifest.digest)
    shown = json.loads((first.folder / "summary.json").read_text())[TENSORS[0]]
    assert shown["minmax"] == [first.collector.low[0], first.collector.high[0]]
    other = calibrate(
        fp32, streams_of(fp32, corpus, plans=[0, 4]), TENSORS[:1], tmp_path, collect=RangeCollector, progress=quiet, threads=1
    )
    assert other.folder != first.folder
    (first.folder / "state.npz").write_bytes((first.folder / "state.npz").read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="damaged"):
        calibrate(fp32, streams, TENSORS, tmp_path, collect=RangeCollector, progress=quiet, threads=1)


PLANS = [0, 1, 4, 5]
CALIBRATE = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from nemoport.artifact import Artifact
from nemoport.calibration.cache import calibrate
from nemoport.calibration.gram import GramCollector
from nemoport.speech.corpus import read_corpus
import test_calibration as t
fp32 = Artifact.open(sys.argv[1])
streams = t.streams_of(fp32, read_corpus(t.CALIBRATION, 16000), plans=t.PLANS)
def progress(line):
    print(line, flush=True)
    if "3 of 4" in str(line):
        os.kill(os.getpid(), signal.SIGKILL)
calibrate(fp32, streams, t.TENSORS, Path(sys.argv[2]), collect=t.RangeCollector, progress=progress, threads=1, save_every=2)
"""


def python(code, *arguments):
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_killed_calibration_is_taken_up_and_ends_the_same(fp32, corpus, tmp_path):
    killed = python(CALIBRATE, fp32.folder, tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    lines, streams = [], streams_of(fp32, corpus, plans=PLANS)
    resumed = calibrate(fp32, streams, TENSORS, tmp_path / "killed", collect=RangeCollector, progress=lines.append, threads=1)
    assert [step.done for step in lines] == [2, 3, 4]
    whole = calibrate(fp32, streams, TENSORS, tmp_path / "whole", collect=RangeCollector, progress=quiet, threads=1)
    assert resumed.digest == whole.digest
    arrays = whole.collector.to_arrays()
    assert all(np.array_equal(arrays[k], v) for k, v in resumed.collector.to_arrays().items())


MEMORY = """
import resource, sys
import onnx
from pathlib import Path
from dataclasses import replace
from nemoport.artifact import Artifact
from nemoport.speech.corpus import read_corpus
from nemoport.calibration.stream import StreamParameters
from nemoport.quantize.graph import layer_matmuls
import test_calibration as t
fp32 = Artifact.open(sys.argv[1])
model = onnx.load(fp32.encoder, load_external_data=False)
tensors = list(dict.fromkeys(node.input[0] for node in layer_matmuls(model)))
streams = t.streams_of(fp32, read_corpus(t.CALIBRATION, 16000), StreamParameters(), utterances=int(sys.argv[2]))
streams.plans = tuple(replace(plan, lookahead=13) for plan in streams.plans if not plan.collect_start)
t.collect(fp32, streams, tensors)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_number_of_clips(fp32):
    """Peak of a fresh process, MiB. Keeping the activations would take 1.4 MB a chunk, 0.2 GB for 50 clips."""
    runs = {clips: python(MEMORY, fp32.folder, clips) for clips in (10, 50)}
    assert all(run.returncode == 0 for run in runs.values()), runs
    peaks = {clips: float(run.stdout) for clips, run in runs.items()}
    assert peaks[50] < peaks[10] + 24, peaks


@pytest.mark.parametrize(("rate_hz", "level", "found"), [(8000, 0.3, "8000 Hz"), (16000, 1e-4, "nothing above 0.001")])
def test_audio_that_is_no_wide_band_speech_is_refused(build, tmp_path, rate_hz, level, found):
    import soundfile

    noise = level * np.random.default_rng(0).uniform(-1, 1, 30 * rate_hz)
    soundfile.write(tmp_path / "a.wav", noise, rate_hz)
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": ""}) + "\n")
    with pytest.raises(CorpusError, match=found):
        build_variant(build, "int8-static", tmp_path / "manifest.jsonl", progress=lambda line: None)
