"""The front end against NeMo's own preprocessor, against itself in packets, and against mistakes it must tell apart."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemoport import frontend
from nemoport.audio import read_audio
from nemoport.errors import ArtifactError, AudioError, NemoportError
from nemoport.export.frontend_graph import build_frontend_graph
from nemoport.frontend import LogMel, LogMelStream, hann_window, mel_filterbank, nemo_extra_frame
from nemoport.spec import FrontendSpec
from nemoport.torch_sum import torch_sum

SPEC = FrontendSpec(
    sample_rate_hz=16000,
    n_mels=128,
    n_fft=512,
    win_samples=400,
    hop_samples=160,
    preemphasis=0.97,
    log_guard=2.0**-24,
    normalize="NA",
)
BANK = mel_filterbank(SPEC)
EVAL = Path(__file__).parents[1] / "reference" / "audio" / "eval.jsonl"


def speech(clips: int) -> dict[str, np.ndarray]:
    """Reference clips where the repository has them; a synthetic voice always."""
    rng = np.random.default_rng(1)
    t = np.arange(40123) / SPEC.sample_rate_hz
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / SPEC.sample_rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 40)) * np.maximum(0, np.sin(2 * np.pi * 2.3 * t))
    found = {"synthetic voice": (0.2 * voice + 1e-4 * rng.standard_normal(len(t))).astype(np.float32)}
    lines = EVAL.read_text().splitlines()[:clips] if EVAL.is_file() else []
    for name in [json.loads(line)["audio_filepath"] for line in lines]:
        found[name] = read_audio(EVAL.parent / name, SPEC.sample_rate_hz)
    return found


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    voice = speech(0)["synthetic voice"]
    one_bit = rng.integers(-1, 2, 16000) / 32768
    half_silent = np.concatenate([np.zeros(8000), 0.3 * rng.standard_normal(8000)])
    made = {
        "digital silence": np.zeros(16000),
        "loud sine": 0.99 * np.sin(2 * np.pi * 1000 * np.arange(16000) / SPEC.sample_rate_hz),
        "loud noise": rng.uniform(-1, 1, 16000),
        "very quiet voice": 1e-4 * voice,
        "one bit": one_bit,
        "silence, then noise": half_silent,
        "constant offset": np.full(16000, 0.5),
    }
    return {name: samples.astype(np.float32) for name, samples in made.items()}


def nemo_preprocessor(spec: FrontendSpec = SPEC):
    pytest.importorskip("nemo")
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    return AudioToMelSpectrogramPreprocessor(
        sample_rate=spec.sample_rate_hz,
        normalize=spec.normalize,
        features=spec.n_mels,
        n_fft=spec.n_fft,
        window_size=spec.win_samples / spec.sample_rate_hz,
        window_stride=spec.hop_samples / spec.sample_rate_hz,
        dither=0.0,
        pad_to=0,
    ).eval()


@pytest.fixture(scope="module")
def nemo():
    """samples f32 [L] -> NeMo's log-mel f32 [n_mels, L // hop + 1], its extra frame included."""
    pytest.importorskip("nemo")
    import torch

    def run(samples, preprocessor=nemo_preprocessor()):  # noqa: B008  (built once, when the fixture is first used)
        mel, length = preprocessor(input_signal=torch.tensor(samples)[None], length=torch.tensor([len(samples)]))
        assert int(length) == len(samples) // SPEC.hop_samples
        return mel[0].numpy()

    return run


def agrees(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Limits of about twice what 427 s of speech measured: at most 4.7e-4, 99.9 % of values within 6.2e-5.

    All of the difference is rounding in NeMo's float32 transform. It grows with the frame's loudest band, so that bands
    within 10 nats (43 dB) of that one, measured at most 3.9e-5, are held to a smaller limit than those below.
    """
    difference = np.abs(ours - theirs)
    loud = difference[theirs > theirs.max(0) - 10]
    return bool(difference.max() <= 1e-3 and np.quantile(difference, 0.999) <= 1.5e-4 and loud.max() <= 1e-4)


def reference(samples, *, window=None, pad_mode="constant", guard=SPEC.log_guard, dtype=np.float64) -> np.ndarray:
    """The formula written down a second time, in float64 throughout, [n_mels, L // hop]."""
    samples = samples.astype(np.float64)
    signal = np.concatenate([samples[:1], samples[1:] - SPEC.preemphasis * samples[:-1]])
    padded = np.pad(signal, SPEC.n_fft // 2, mode=pad_mode)
    window = np.hanning(SPEC.win_samples) if window is None else window
    window = np.pad(window, (SPEC.n_fft - SPEC.win_samples) // 2)
    starts = np.arange(len(samples) // SPEC.hop_samples) * SPEC.hop_samples
    spectrum = np.fft.rfft([padded[s : s + SPEC.n_fft] * window for s in starts])
    return np.log(BANK.astype(np.float64) @ (np.abs(spectrum) ** 2).T + guard)


def in_packets(samples: np.ndarray, sizes) -> np.ndarray:
    stream, out, at = LogMelStream(SPEC, BANK), [], 0
    for size in sizes:
        out.append(stream.feed(samples[at : at + size]))
        at += size
        if at >= len(samples):
            break
    return np.concatenate([*out, stream.finish()], 1)


# Against NeMo


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filterbank_is_nemos_bit_for_bit(n_mels):
    theirs = nemo_preprocessor(replace(SPEC, n_mels=n_mels)).featurizer.fb[0].numpy()
    assert np.array_equal(mel_filterbank(replace(SPEC, n_mels=n_mels)), theirs)


def test_window_is_torchs_to_the_last_bit_or_so():
    pytest.importorskip("torch")
    import torch

    ours, theirs = hann_window(400), torch.hann_window(400, periodic=False).numpy()
    assert np.abs(ours - theirs).max() <= 6e-8
    assert ours[0] == ours[-1] == theirs[0] == theirs[-1] == 0


def test_speech_equals_nemo(nemo):
    for name, samples in speech(8).items():
        assert agrees(LogMel(SPEC, BANK).whole(samples), nemo(samples)[:, :-1]), name


def test_other_sounds_equal_nemo(nemo):
    for name, samples in signals().items():
        ours, theirs = LogMel(SPEC, BANK).whole(samples), nemo(samples)[:, :-1]
        assert np.abs(ours - theirs).max() <= 5e-4, name
    assert np.array_equal(LogMel(SPEC, BANK).whole(np.zeros(800, np.float32)), nemo(np.zeros(800, np.float32))[:, :-1])


def test_what_differs_is_nemos_own_rounding(nemo):
    """Both against float64: ours is closer, and where they differ most, a far louder band drives NeMo's rounding."""
    ours, theirs, exact = [], [], []
    for samples in speech(8).values():
        ours.append(LogMel(SPEC, BANK).whole(samples))
        theirs.append(nemo(samples)[:, :-1])
        exact.append(reference(samples))
    ours, theirs, exact = (np.concatenate(parts, 1) for parts in (ours, theirs, exact))
    assert np.abs(ours - exact).mean() < np.abs(theirs - exact).mean()
    assert np.abs(ours - exact).max() <= 5e-4
    band, frame = np.unravel_index(np.abs(ours - theirs).argmax(), ours.shape)
    assert theirs[band, frame] < theirs[:, frame].max() - 10


@pytest.mark.parametrize("length", [160, 161, 198, 199, 200, 319, 320, 358, 359, 360, 512, 799])
def test_very_short_signals_equal_nemo(nemo, length):
    samples = speech(0)["synthetic voice"][2000 : 2000 + length]
    theirs = nemo(samples)
    assert agrees(LogMel(SPEC, BANK).whole(samples), theirs[:, :-1])
    assert np.array_equal(theirs[:, -1:], nemo_extra_frame(SPEC.n_mels))


def test_less_than_a_hop_is_no_frame():
    for length in (0, 1, 159):
        samples = np.ones(length, np.float32)
        assert LogMel(SPEC, BANK).whole(samples).shape == in_packets(samples, [length]).shape == (128, 0)


def test_per_feature_normalisation_equals_nemo(nemo):
    spec = replace(SPEC, normalize="per_feature")
    preprocessor = nemo_preprocessor(spec)
    for name, samples in speech(4).items():
        difference = np.abs(LogMel(spec, BANK).whole(samples) - nemo(samples, preprocessor)[:, :-1])
        assert difference.max() <= 5e-4 and np.quantile(difference, 0.999) <= 5e-5, name
    assert not LogMel(spec, BANK).whole(np.ones(160, np.float32)).any(), "one frame has no deviation: NeMo yields 0"
    assert LogMel(spec, BANK).whole(np.ones(100, np.float32)).shape == (128, 0)


def test_near_silence_is_normalised_as_in_nemo(nemo):
    """What remains there is the rounding of the mean over a guard of 1e-5: up to 0.4, and a model may emit a token for it."""
    spec, lsb = replace(SPEC, normalize="per_feature"), np.float32(2**-15)
    preprocessor, found = nemo_preprocessor(spec), set()
    for samples in (3200, 8000, 24000, 32000, 48000, 64000, 96000, 160007):
        zeros = np.zeros(samples, np.float32)
        click, steps = zeros.copy(), (np.random.default_rng(3).random(samples) < 1e-3) * lsb
        click[samples // 2] = lsb
        for sound in (zeros, zeros + lsb, click, steps):
            mel = LogMel(spec, BANK).whole(sound)
            assert np.abs(mel - nemo(sound, preprocessor)[:, :-1]).max() <= 1e-5, samples
        found.add(round(float(LogMel(spec, BANK).whole(zeros)[0, 0]), 1))
    assert found == {-0.2, -0.3, 0.0}


@pytest.mark.parametrize("count", [1, 3, 7, 8, 11, 31, 32, 33, 511, 545, 16 * 32 * 17, 4099])
def test_sums_are_torchs_bit_for_bit(count):
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(count).normal(-10, 3, (3, count)).astype(np.float32)
    assert np.array_equal(torch_sum(rows), torch.from_numpy(rows).sum(1, keepdim=True).numpy())


def per_chunk(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([reference(samples[at : at + 8960]) for at in range(0, len(samples), 8960)], 1)


def normalised(samples: np.ndarray) -> np.ndarray:
    return LogMel(replace(SPEC, normalize="per_feature"), BANK).whole(samples)


WRONG = {
    "periodic window": lambda x: reference(x, window=np.hanning(401)[:-1]),
    "window of n_fft samples": lambda x: reference(x, window=np.hanning(512)[56:-56]),
    "log guard 1e-10": lambda x: reference(x, guard=1e-10),
    "log guard 2^-23": lambda x: reference(x, guard=2.0**-23),
    "reflected edges": lambda x: reference(x, pad_mode="reflect"),
    "each chunk on its own": per_chunk,
    "normalised per feature": normalised,
    "16-bit scale": lambda x: reference(x * 32768),
    "one hop late": lambda x: np.roll(reference(x), 1, 1),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_front_end_does_not_pass(nemo, mistake):
    samples = speech(0)["synthetic voice"][900:20900]  # begins in sound, so that edges matter
    theirs = nemo(samples)[:, :-1]
    assert agrees(reference(samples), theirs)
    assert not agrees(WRONG[mistake](samples), theirs)


# In packets


@pytest.mark.parametrize("size", [1, 7, 16, 159, 160, 161, 198, 199, 320, 1600, 8960, 80000])
def test_packets_of_one_size_give_the_same_bits(size):
    samples = speech(3)["synthetic voice"][: 8000 if size < 16 else None]
    assert np.array_equal(in_packets(samples, [size] * len(samples)), LogMel(SPEC, BANK).whole(samples))


@pytest.mark.parametrize("seed", range(20))
def test_packets_of_random_sizes_give_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(int(rng.integers(0, 30000))).astype(np.float32)
    scale = int(rng.choice([3, 50, 400, 20000]))
    sizes = rng.integers(0, scale + 1, 100_000)
    assert np.array_equal(in_packets(samples, sizes), LogMel(SPEC, BANK).whole(samples))


@pytest.mark.parametrize(
    "change",
    [{"win_samples": 320}, {"win_samples": 512, "hop_samples": 128}, {"win_samples": 401}, {"n_mels": 80, "n_fft": 400}],
)
@pytest.mark.parametrize("length", [4319, 4320, 4321])
def test_other_geometries_give_the_same_bits_in_packets(change, length):
    """The first has a hop longer than half the window: a frame's samples are complete before it is valid, and those of 4319 are
    complete for a frame that never becomes valid."""
    samples = np.random.default_rng(3).standard_normal(length).astype(np.float32)
    spec = replace(SPEC, **change)
    stream, bank = LogMelStream(spec, mel_filterbank(spec)), mel_filterbank(spec)
    fed = [stream.feed(samples[at : at + 1]) for at in range(len(samples))]
    assert np.array_equal(np.concatenate([*fed, stream.finish()], 1), LogMel(spec, bank).whole(samples))


@pytest.mark.parametrize("block", [1, 7, 100])
def test_a_frames_bits_do_not_depend_on_its_neighbours(monkeypatch, block):
    samples = speech(0)["synthetic voice"]
    whole = LogMel(SPEC, BANK).whole(samples)
    monkeypatch.setattr(frontend, "_BLOCK_FRAMES", block)
    assert np.array_equal(LogMel(SPEC, BANK).whole(samples), whole)


def test_a_frame_comes_with_its_last_sample():
    stream = LogMelStream(SPEC, BANK)
    samples = speech(0)["synthetic voice"]
    came = [n for n in range(1, 2000) if stream.feed(samples[n - 1 : n]).shape[1]]
    assert came == [160 * frame + 199 for frame in range(len(came))] and len(came) == 12


def test_the_caller_may_fill_its_buffer_anew():
    samples = speech(0)["synthetic voice"]
    stream, buffer, out = LogMelStream(SPEC, BANK), np.empty(16, np.float32), []
    for at in range(0, 8000, 16):
        buffer[:] = samples[at : at + 16]
        out.append(stream.feed(buffer))
    assert np.array_equal(np.concatenate([*out, stream.finish()], 1), LogMel(SPEC, BANK).whole(samples[:8000]))


def test_memory_does_not_grow_with_the_stream():
    stream, packet = LogMelStream(SPEC, BANK), np.zeros(160, np.float32)
    tracemalloc.start()
    for _ in range(3000):
        stream.feed(packet)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000 and peak < 100_000


def test_memory_of_a_long_signal_is_bounded():
    samples = np.zeros(16000 * 60, np.float32)
    tracemalloc.start()
    mel = LogMel(SPEC, BANK).whole(samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mel.nbytes + 5 * samples.nbytes + 5_000_000


def test_the_end_of_a_stream_is_the_end():
    stream = LogMelStream(SPEC, BANK)
    stream.feed(np.zeros(500, np.float32))
    assert stream.finish().shape[1] == 1 and stream.finish().shape[1] == 0
    with pytest.raises(AudioError, match="after the end"):
        stream.feed(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    "bad", [np.array([0, np.nan], np.float32), np.array([np.inf]), np.zeros(4, np.int16), np.zeros((2, 4), np.float32)]
)
def test_a_bad_packet_is_refused_and_leaves_no_trace(bad):
    samples = speech(0)["synthetic voice"][:4000]
    stream = LogMelStream(SPEC, BANK)
    first = stream.feed(samples[:1000])
    with pytest.raises(AudioError, match="expected: .*\n  found: .*\n  do: "):
        stream.feed(bad)
    out = np.concatenate([first, stream.feed(samples[1000:]), stream.finish()], 1)
    assert np.array_equal(out, LogMel(SPEC, BANK).whole(samples))
    with pytest.raises(AudioError):
        LogMel(SPEC, BANK).whole(bad)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(NemoportError, match="cannot be streamed"):
        LogMelStream(replace(SPEC, normalize="per_feature"), BANK)
    damaged = BANK.copy()
    damaged[3, 4] = np.nan
    for spec, bank in [
        (SPEC, BANK[:80]),
        (SPEC, BANK[None]),
        (SPEC, damaged),
        (replace(SPEC, normalize="all_features"), BANK),
        (replace(SPEC, win_samples=600), BANK),
        (replace(SPEC, hop_samples=400), BANK),
    ]:
        with pytest.raises(ArtifactError, match="expected: .*\n  found: .*\n  do: "):
            LogMel(spec, bank)


def test_import_needs_numpy_only():
    heavy = "{'torch', 'nemo', 'librosa', 'scipy', 'soundfile', 'soxr', 'onnx', 'onnxruntime'}"
    program = f"import sys, nemoport.frontend, nemoport.audio; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# As a graph


def graph_session(spec: FrontendSpec = SPEC, bank: np.ndarray = BANK):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = build_frontend_graph(spec, bank).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_graph(session, batch: list[np.ndarray], behind: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    audio = np.full((len(batch), max(len(samples) for samples in batch)), behind, np.float32)
    for row, samples in enumerate(batch):
        audio[row, : len(samples)] = samples
    lengths = np.array([len(samples) for samples in batch], np.int64)
    return tuple(session.run(["mel", "mel_length"], {"audio": audio, "length": lengths}))


def test_graph_equals_numpy_and_nemo(nemo):
    session = graph_session()
    for name, samples in {**speech(6), **signals()}.items():
        mel, length = run_graph(session, [samples])
        assert mel.dtype == np.float32 and length.tolist() == [len(samples) // 160]
        assert np.abs(mel[0] - LogMel(SPEC, BANK).whole(samples)).max() <= 5e-4, name
        assert name in signals() or agrees(mel[0], nemo(samples)[:, :-1]), name


@pytest.mark.parametrize("behind", [0.0, 1e4, np.nan, np.inf])
def test_graph_batches_signals_of_different_length(behind):
    """Of each signal only `length` samples count, whatever is behind them; frames behind its own are 0."""
    voice, session = speech(0)["synthetic voice"], graph_session()
    batch = [voice, voice[500:1300], voice[:0], voice[:159], voice[900:1060], voice[3000:9999]]
    mel, lengths = run_graph(session, batch, behind)
    assert mel.shape == (6, 128, len(voice) // 160) and lengths.tolist() == [len(samples) // 160 for samples in batch]
    for row, samples in enumerate(batch):
        frames = len(samples) // 160
        assert np.abs(mel[row, :, :frames] - LogMel(SPEC, BANK).whole(samples)).max(initial=0) <= 5e-4
        assert not mel[row, :, frames:].any()


@pytest.mark.parametrize("length", [1, 159, 160, 199, 200, 400])
def test_graph_takes_very_short_signals(length):
    samples = speech(0)["synthetic voice"][2000 : 2000 + length]
    mel, lengths = run_graph(graph_session(), [samples])
    ours = LogMel(SPEC, BANK).whole(samples)
    assert mel.shape == (1, *ours.shape) and lengths.tolist() == [length // 160]
    assert np.abs(mel[0] - ours).max(initial=0) <= 5e-4


@pytest.mark.parametrize(
    "change",
    [{"n_mels": 80}, {"normalize": "per_feature"}, {"win_samples": 320}, {"n_fft": 1024, "win_samples": 800}],
)
def test_graph_of_other_front_ends(change):
    spec = replace(SPEC, **change)
    bank, voice = mel_filterbank(spec), speech(0)["synthetic voice"]
    batch = [voice, voice[500:1300], voice[900:1060]]
    mel, _ = run_graph(graph_session(spec, bank), batch)
    for row, samples in enumerate(batch):
        ours = LogMel(spec, bank).whole(samples)
        assert np.abs(mel[row, :, : ours.shape[1]] - ours).max() <= 5e-4
        assert not mel[row, :, ours.shape[1] :].any()


def test_graph_uses_its_opset_and_names():
    model = build_frontend_graph(SPEC, BANK)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert [v.name for v in model.graph.input] == ["audio", "length"]
    assert [v.name for v in model.graph.output] == ["mel", "mel_length"]
    with pytest.raises(ArtifactError):
        build_frontend_graph(SPEC, BANK[:80])
