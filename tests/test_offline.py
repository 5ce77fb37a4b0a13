"""Offline models: full context, TDT durations, whole recordings. Held against NeMo on a small random checkpoint, whose
tokens and durations vary, and against HF transformers with renamed weights."""

import io
import json
from dataclasses import replace
from pathlib import Path

import hf_oracle
import numpy as np
import pytest
import soundfile
from quantizing import FOR_OFFLINE, short_manifest
from samples import SPEC

from nemoport import audio
from nemoport.artifact import ENCODER, Artifact
from nemoport.audio import read_audio
from nemoport.cli import main
from nemoport.decode import GreedyState, greedy
from nemoport.errors import AudioError, NemoportError, UsageError
from nemoport.export.blocked_attention import BLOCK
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.package.examples import native_offline as native_offline_example
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.reference.random_checkpoint import pseudo_speech
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.score import count_all, wer_percent
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec
from nemoport.speech.corpus import read_corpus
from nemoport.stream import advance
from nemoport.validate import nemo, nemo_runs

REFERENCE = Path(__file__).parent.parent / "reference"


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint):
    return read_checkpoint(str(random_checkpoint("tiny-tdt")))


@pytest.fixture(scope="module")
def model(checkpoint):
    return nemo.restore(checkpoint)


@pytest.fixture(scope="module")
def offline_build(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    export_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def session(offline_build):
    return OnnxSession.open(Artifact.open(offline_build / "fp32"), threads=1)


@pytest.fixture(scope="module")
def utterances():
    corpus = read_corpus(REFERENCE / "audio" / "eval.jsonl", 16000)
    return sorted(corpus.utterances, key=lambda u: u.seconds)[::9]


def test_spec_is_the_configs(checkpoint):
    spec = checkpoint.spec
    assert (spec.kind, spec.streaming, spec.lookaheads) == ("offline-tdt", None, (None,))
    assert spec.decoding.durations == (0, 1, 2, 3, 4) and spec.decoding.n_scores == spec.decoding.vocab_size + 6
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


# around a block of queries, and lengths at which the subsampling's frames begin and end
FRAMES = [1, 2, 8, 9, 16, 17, 8 * BLOCK - 1, 8 * BLOCK, 8 * BLOCK + 1, 24 * BLOCK + 5]


@pytest.mark.parametrize("frames", FRAMES)
def test_encoder_equals_nemos(frames, session, model):
    """A batch of a full utterance and of shorter ones, whose padding holds what must not be transcribed."""
    import torch

    random = np.random.default_rng(frames)
    mel = random.standard_normal((3, 128, frames)).astype(np.float32)
    lengths = np.array([frames, max(1, frames - 7), max(1, frames // 2)])
    with nemo.exact(model):
        wanted, wanted_lengths = model.encoder(audio_signal=torch.from_numpy(mel), length=torch.from_numpy(lengths))
    loud = mel + 100 * (np.arange(frames) >= lengths[:, None, None])
    found, found_lengths, _ = session.encode(loud.astype(np.float32), lengths, session.initial_state(3))
    assert found_lengths.tolist() == wanted_lengths.tolist()
    for row, count in enumerate(found_lengths):
        assert np.abs(found[row, :count] - wanted[row, :, :count].numpy().T).max() < 5e-5


def test_interface_is_the_contracts(offline_build, checkpoint):
    """Names, types, shapes, metadata, as the gate wants them."""
    from nemoport.validate.context import Context
    from nemoport.validate.gates import contract
    from nemoport.validate.limits import limits_of

    (result,) = contract.run(Context(offline_build / "fp32", limits_of("fp32"), checkpoint, None, None))
    assert result.passed, result.evidence


def test_wrong_positions_show(offline_build, tmp_path, model, checkpoint):
    """The negative control: a graph whose distances are off by one is far from NeMo."""
    import onnx
    import torch

    model_proto = onnx.load(offline_build / "fp32" / ENCODER)
    node = next(n for n in model_proto.graph.node if n.op_type == "Sin")
    angles = next(n for n in model_proto.graph.node if n.output[0] == node.input[0])
    model_proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.01), "stretched"))
    model_proto.graph.node.insert(
        list(model_proto.graph.node).index(node), onnx.helper.make_node("Mul", [angles.output[0], "stretched"], ["angles_x"])
    )
    for reader in model_proto.graph.node:
        if reader.op_type in ("Sin", "Cos"):
            reader.input[0] = "angles_x"
    onnx.save(model_proto, tmp_path / ENCODER)
    damaged = OnnxSession(checkpoint.spec, tmp_path / ENCODER, offline_build / "fp32" / "decoder_model.onnx", threads=1)
    mel = np.random.default_rng(0).standard_normal((1, 128, 800)).astype(np.float32)
    with nemo.exact(model):
        wanted, _ = model.encoder(audio_signal=torch.from_numpy(mel), length=torch.tensor([800]))
    found, _, _ = damaged.encode(mel, np.array([800]), damaged.initial_state(1))
    assert np.abs(found[0] - wanted[0].numpy().T).max() > 1e-3


@pytest.mark.slow
def test_beyond_the_published_table(session, model):
    """NeMo's own export ends at 5000 encoder frames, 400 s; NeMo itself does not, and neither do we."""
    import torch

    mel = np.random.default_rng(0).standard_normal((1, 128, 40_400)).astype(np.float32)
    with nemo.exact(model):
        wanted, lengths = model.encoder(audio_signal=torch.from_numpy(mel), length=torch.tensor([40_400]))
    found, _, _ = session.encode(mel, np.array([40_400]), session.initial_state(1))
    assert int(lengths[0]) == 5050 and np.abs(found[0] - wanted[0].numpy().T).max() < 1e-4


@pytest.mark.parametrize("strategy", ["greedy", "greedy_batch"])
def test_tokens_times_and_durations_are_nemos(strategy, checkpoint, model, session, utterances):
    """On encoder frames of speech and on random ones, which bring every duration and the guard into play."""
    import torch
    from omegaconf import open_dict

    decoding = model.cfg.decoding.copy()
    with open_dict(decoding):
        decoding.strategy = strategy
        decoding.tdt_include_token_duration = True
        decoding.greedy.max_symbols = checkpoint.spec.decoding.max_symbols_per_frame
    model.change_decoding_strategy(decoding, verbose=False)
    random = np.random.default_rng(0)
    width = checkpoint.spec.encoder.d_model
    transcribed = [
        (random.standard_normal((n, width)) * scale).astype(np.float32) for n, scale in ((40, 1), (120, 3), (7, 1), (60, 9))
    ]
    with nemo.exact(model):
        transcribed += [nemo_runs.offline(model, u.samples(), None).frames for u in utterances]
        wanted = [
            model.decoding.rnnt_decoder_predictions_tensor(
                encoder_output=torch.from_numpy(f.T[None].copy()),
                encoded_lengths=torch.tensor([len(f)]),
                return_hypotheses=True,
            )[0]
            for f in transcribed
        ]
    longest = max(map(len, transcribed))
    batch = np.stack([np.pad(f, ((0, longest - len(f)), (0, 0))) for f in transcribed])
    states = [GreedyState.initial(checkpoint.spec.decoding) for _ in transcribed]
    greedy(session, batch, np.array([len(f) for f in transcribed]), states)
    for state, theirs in zip(states, wanted, strict=True):
        assert state.tokens == [int(t) for t in theirs.y_sequence]
        assert state.token_frames == [int(t) for t in theirs.timestamp]
        assert state.token_durations == [int(d) for d in theirs.token_duration]
    assert len({d for s in states for d in s.token_durations}) >= 3 and sum(len(s.tokens) for s in states) > 100


class Scripted:
    """A session whose (token, duration index) at each frame are given; what was consumed does not matter."""

    def __init__(self, script, max_symbols=3):
        decoding = DecodingSpec(4, 1, 1, 1, max_symbols, durations=(0, 1, 2, 4))
        front_end = FrontendSpec(16000, 2, 4, 4, 2, 0.0, 1.0, "per_feature")
        self.spec, self.script = ModelSpec("offline-tdt", front_end, decoding, offline=OfflineSpec(1, 1, 1, 8)), script

    def step(self, frames, tokens, state):
        scores = np.zeros((*frames.shape[:2], self.spec.decoding.n_scores), np.float32)
        for t in range(frames.shape[1]):
            token, duration = self.script[int(frames[0, t, 0])]
            scores[0, t, token] = scores[0, t, 5 + duration] = 1
        return scores, state


@pytest.mark.parametrize(
    ("script", "tokens", "frames"),
    [
        ([(4, 0), (1, 1), (4, 3), (0, 0), (0, 0), (0, 0), (2, 2)], [1, 2], [1, 6]),  # blank with 0 goes on by 1
        ([(1, 0), (2, 0), (4, 1)], [1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1]),  # the guard, of 3 tokens
        ([(1, 3), (2, 1), (2, 1), (2, 1), (3, 3)], [1, 3], [0, 4]),  # 4 frames, and beyond the end
        ([(4, 3)] * 40 + [(1, 1)], [1], [40]),  # blanks over more frames than one call joins
    ],
)
def test_durations(script, tokens, frames):
    session = Scripted(script)
    state = GreedyState.initial(session.spec.decoding)
    greedy(session, np.arange(len(script), dtype=np.float32)[None, :, None], np.array([len(script)]), [state])
    assert (state.tokens, state.token_frames, state.frame) == (tokens, frames, len(script))


def test_batches_equal_alone(offline_build, utterances, model):
    recognizer = Recognizer.open(offline_build / "fp32", threads=1)
    audio = [(u.id, u.samples()) for u in utterances]
    alone = {h.id: h for h in recognizer.transcribe(audio)}
    together = {h.id: h for h in recognizer.transcribe(audio, streams=8)}
    assert {k: h.tokens for k, h in alone.items()} == {k: h.tokens for k, h in together.items()}
    with nemo.exact(model):
        for u in utterances:
            wanted = nemo_runs.offline(model, u.samples(), None)
            assert (alone[u.id].tokens, alone[u.id].text) == (wanted.tokens, wanted.text)


def test_equals_hf_transformers(checkpoint, session, utterances):
    import torch

    other = hf_oracle.parakeet_from_checkpoint(checkpoint)
    for utterance in utterances[-2:]:
        features, mask = hf_oracle.parakeet_mel(utterance.samples(), checkpoint.spec.frontend.n_mels)
        with torch.inference_mode():
            wanted = other.encoder(features, attention_mask=mask).last_hidden_state[0].numpy()
        mel = features[:, mask[0].bool()].transpose(1, 2).numpy()
        found, lengths, _ = session.encode(mel, np.array([mel.shape[2]]), session.initial_state(1))
        assert np.abs(found[0, : lengths[0]] - wanted[: lengths[0]]).max() < 5e-5


def test_nothing_is_said_before_the_end(offline_build, utterances):
    recognizer = Recognizer.open(offline_build / "fp32", threads=1)
    stream, samples = recognizer.stream(), utterances[-1].samples()
    for at in range(0, len(samples), 1600):
        assert stream.feed(samples[at : at + 1600]) == []
    assert stream.finish() == stream.tokens != []
    assert stream.tokens == list(next(recognizer.transcribe([("", samples)])).tokens)


@pytest.mark.parametrize("samples", [0, 100, 160, 400, 16000])
def test_silence_and_next_to_nothing(samples, offline_build):
    """Digital silence has deviation 0, and one frame none at all."""
    recognizer = Recognizer.open(offline_build / "fp32", threads=1)
    stream = recognizer.stream()
    stream.push(np.zeros(samples, np.float32))
    stream.close()
    assert all((chunk.mel == chunk.mel[0, 0]).all() and abs(chunk.mel[0, 0]) < 0.5 for chunk in stream.chunks)
    advance(recognizer.session, [stream])
    assert stream.decoded.frame == -(-(samples // 160) // 8)


def test_bad_samples_are_refused(offline_build):
    stream = Recognizer.open(offline_build / "fp32", threads=1).stream()
    with pytest.raises(AudioError, match="nan at sample 7 of 20"):
        stream.feed(np.where(np.arange(20) == 7, np.nan, 0).astype(np.float32))


def test_what_an_offline_model_has_not(checkpoint, offline_build, tmp_path):
    with pytest.raises(UsageError, match="no lookahead"):
        Recognizer.open(offline_build / "fp32", 6).stream()
    with pytest.raises(UsageError, match="no flush rule"):
        Recognizer.open(offline_build / "fp32", flush="nemo").stream()
    with pytest.raises(UsageError, match="no caches"):
        export_checkpoint(checkpoint, tmp_path, "kv")


def test_examples_code_hears_the_same(offline_build, utterances):
    path = utterances[-1].path
    tokens, seconds, text = native_offline_example.transcribe(offline_build, "fp32", path)
    ours = Recognizer.open(offline_build / "fp32").transcribe_file(path)
    assert (tuple(tokens), text) == (ours.tokens, ours.text)
    np.testing.assert_allclose(seconds, ours.token_seconds)


@pytest.mark.parametrize("variant", ["fp16", "int8-dynamic", "int8-smoothquant", "int8-weight", "int4-weight", "int2-weight"])
def test_variants_run_near_fp32(variant, offline_build, session, utterances, tmp_path):
    """Their accuracy is the gates' business, on a checkpoint that has learned something."""
    build_variant(offline_build, variant, short_manifest(tmp_path, count=FOR_OFFLINE), progress=lambda line: None)
    other = OnnxSession.open(Artifact.open(offline_build / variant), threads=1)
    mel = np.random.default_rng(0).standard_normal((2, 128, 1500)).astype(np.float32)
    lengths = np.array([1500, 900])
    frames, _, _ = session.encode(mel, lengths, session.initial_state(2))
    found, counts, _ = other.encode(mel, lengths, other.initial_state(2))
    errors = [np.linalg.norm(found[i, :n] - frames[i, :n]) / np.linalg.norm(frames[i, :n]) for i, n in enumerate(counts)]
    assert 0 < max(errors) < {"fp16": 0.005, "int4-weight": 0.3, "int2-weight": 1.0}.get(variant, 0.08)
    halves = variant == "fp16"
    bytes_of = {v: (offline_build / v / f"{ENCODER}.data").stat().st_size for v in ("fp32", variant)}
    assert bytes_of[variant] < (0.6 if halves else 0.5) * bytes_of["fp32"]


def test_rnnt_of_full_context(checkpoint, tmp_path):
    """parakeet-rnnt's kind: the same encoder, no durations."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel
    from omegaconf import OmegaConf

    asr = nemo.restore(checkpoint)
    raw = OmegaConf.to_container(asr.cfg)
    raw["decoding"].pop("durations", None)
    raw["decoding"]["model_type"] = "rnnt"
    raw["loss"] = {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0}}
    raw["joint"]["num_extra_outputs"] = 0
    raw["joint"].pop("vocabulary", None)
    (tmp_path / "tokenizer.model").write_bytes(checkpoint.tokenizer)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in checkpoint.tokens))
    raw["tokenizer"] = {"dir": str(tmp_path), "type": "bpe"}
    with nemo.quiet():
        other = EncDecRNNTBPEModel(OmegaConf.create(raw))
    weights = asr.state_dict()
    blank = checkpoint.spec.decoding.blank_id
    for name in ("joint.joint_net.2.weight", "joint.joint_net.2.bias"):
        weights[name] = weights[name][: blank + 1]
    other.load_state_dict(weights)
    path = tmp_path / "tiny-rnnt.nemo"
    other.save_to(str(path))
    read = read_checkpoint(str(path))
    assert read.spec.kind == "offline-rnnt"
    export_checkpoint(read, tmp_path / "build")
    samples = read_audio(REFERENCE / "audio" / "eval" / "000.flac", 16000)
    restored = nemo.restore(read)
    with nemo.exact(restored):
        wanted = nemo_runs.offline(restored, samples, None)
    found = next(Recognizer.open(tmp_path / "build" / "fp32", threads=1).transcribe([("", samples)]))
    assert found.tokens == wanted.tokens


def test_unknown_durations_are_refused(checkpoint):
    from nemoport.export.unsupported import unsupported

    config = json.loads(json.dumps(checkpoint.config))
    config["decoding"]["durations"] = config["loss"]["tdt_kwargs"]["durations"] = [0]
    config["joint"]["num_extra_outputs"] = 1
    assert unsupported(config) == ["decoding.durations is [0], not frame counts"]
    with pytest.raises(NemoportError, match="either streaming or offline"):
        ModelSpec.from_dict({**checkpoint.spec.to_dict(), "streaming": SPEC["streaming"]})
    assert replace(checkpoint.spec.decoding, durations=()).n_scores == checkpoint.spec.decoding.vocab_size + 1


@pytest.fixture(scope="module")
def trained():
    """The committed checkpoint, and every twentieth utterance of its evaluation speech: English and French."""
    corpus = read_corpus(REFERENCE / "audio" / "eval-tdt.jsonl", 16000)
    return read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo")), corpus.utterances[::20]


def wer(folder, utterances) -> float:
    recognizer = Recognizer.open(folder, threads=1)
    transcribed = [next(recognizer.transcribe([("", u.samples())])).text for u in utterances]
    return wer_percent(count_all([u.text for u in utterances], transcribed))


def test_the_trained_reference_says_what_nemo_says(trained, tmp_path):
    checkpoint, utterances = trained
    export_checkpoint(checkpoint, tmp_path)
    recognizer, asr = Recognizer.open(tmp_path / "fp32", threads=1), nemo.restore(checkpoint)
    with nemo.exact(asr):
        for utterance in utterances:
            found = next(recognizer.transcribe([("", utterance.samples())]))
            wanted = nemo_runs.offline(asr, utterance.samples(), None)
            assert (found.tokens, found.text) == (wanted.tokens, wanted.text) and found.text
    assert wer(tmp_path / "fp32", utterances) < 50


@pytest.mark.slow
def test_outliers_ruin_naive_int8_and_smoothing_recovers(trained, tmp_path):
    from nemoport.reference.outliers import rewrite

    checkpoint, utterances = trained
    rewrite(checkpoint.path, tmp_path / "hard.nemo", 0, 128, 0.02)
    export_checkpoint(read_checkpoint(str(tmp_path / "hard.nemo")), tmp_path / "build")
    for variant in ("int8-dynamic-per-tensor", "int8-smoothquant"):
        build_variant(tmp_path / "build", variant, REFERENCE / "audio" / "calibration-tdt.jsonl", progress=lambda line: None)
    variants = ("fp32", "int8-dynamic-per-tensor", "int8-smoothquant")
    fp32, naive, smooth = (wer(tmp_path / "build" / variant, utterances) for variant in variants)
    assert naive > fp32 + 30 and smooth < fp32 + 5


def test_standard_input_goes_in_windows_and_has_a_bound(offline_build, tmp_path, monkeypatch, capsys):
    """An offline model needs the whole recording: endless input ends in one error, and a long one is not one pass."""
    folder = offline_build / "fp32"
    samples = (pseudo_speech(5, 6.0) * 32767).astype("<i2")
    soundfile.write(tmp_path / "a.wav", samples, 16000)

    def printed(*arguments):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(samples.tobytes()))))
        code = main(["transcribe", str(folder), *arguments])
        return code, *capsys.readouterr()

    for windows in ([], ["--pass-seconds", "40"]):
        code, out, _ = printed("-", *windows)
        assert (code, out.strip()) == (0, printed(str(tmp_path / "a.wav"), *windows)[1].split("\t", 1)[1].strip())
    monkeypatch.setattr(audio, "MOST_SECONDS", 5)
    code, _, error = printed("-")
    assert code == 2 and "Standard input is too long" in error
    stream = Recognizer.open(folder).stream()
    with pytest.raises(AudioError, match="too long"):
        for _ in range(6):
            stream.feed(np.zeros(16000, np.float32))
