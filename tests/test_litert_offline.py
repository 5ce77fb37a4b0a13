"""LiteRT of offline models: windows of fixed length, padding that has no effect, NeMo's tokens, longer recordings, damage that
the gates find, the package; what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import damage
import numpy as np
import pytest
import torch

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.encoder_fixed import FixedEncoder
from nemoport.export.encoder_offline import OfflineEncoder
from nemoport.export.shared import graph_weights
from nemoport.export.targets import export_target, litert
from nemoport.export.targets.openvino import TARGET as OPENVINO
from nemoport.package.assemble import package
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.runtimes.litert.graphs import joint_frames, signatures
from nemoport.speech.corpus import read_corpus
from nemoport.transcription import overlap_samples, pass_seconds
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.result_store import results_path
from nemoport.validate.run import judge
from nemoport.windows import padded_window

REFERENCE = Path(__file__).parent.parent / "reference"
WINDOWS = (3, 8)
FP32 = "litert-fp32"


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo"))


@pytest.fixture(scope="module")
def corpus():
    whole = read_corpus(REFERENCE / "audio" / "eval-tdt.jsonl", 16000)
    short = sorted((u for u in whole.utterances if u.seconds < WINDOWS[-1]), key=lambda u: u.seconds)
    return replace(whole, utterances=(*short[:140:20], short[-1]))


@pytest.fixture(scope="module")
def build(checkpoint, tmp_path_factory):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("litert_torch")
    folder = tmp_path_factory.mktemp("build")
    for precision in litert.TARGET.precisions:
        export_target(checkpoint, folder, "litert", precision, None, windows_s=WINDOWS, progress=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def context_of(checkpoint, corpus, tmp_path_factory):
    oracle = record_oracle(checkpoint, corpus, tmp_path_factory.mktemp("oracle"))
    return lambda folder, variant=FP32: Context(folder / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1)


@pytest.fixture
def copy(build, tmp_path):
    return shutil.copytree(build, tmp_path / "build")


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


# --- without the converter


@pytest.mark.parametrize("near", [None, 10], ids=["all frames", "frames near by"])
@pytest.mark.parametrize(("window", "length"), [(500, 500), (500, 333), (1200, 17), (1200, 8)])
def test_padding_has_no_effect(checkpoint, window, length, near):
    """Against the encoder that takes any length, in windows up to the longest and at lengths that halve with a rest."""
    spec = replace(checkpoint.spec.encoder, attention_enc_frames=near)
    plain, fixed = OfflineEncoder(graph_weights(checkpoint), spec), FixedEncoder(graph_weights(checkpoint), spec, 150)
    assert fixed.unused == []
    mel = torch.randn(1, 128, window, generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        wanted, count = plain(mel[:, :, :length], torch.tensor([length]))
        found, fixed_count = fixed(mel, torch.tensor([length], dtype=torch.int32))  # not even zeros behind it
    assert fixed_count.tolist() == count.tolist() == [spec.enc_frames(length)]
    assert (found[:, : int(count)] - wanted.transpose(1, 2)).abs().max() < 2e-5


def test_the_shortest_window_that_holds_it():
    mel = np.ones((2, 40), np.float32)
    window = padded_window(mel, 30, [64, 32, 16])
    assert window.shape == (2, 32) and window[:, :30].all() and not window[:, 30:].any()
    assert padded_window(mel, 32, [64, 32]).shape == (2, 32) and padded_window(mel, 33, [64, 32]).shape == (2, 64)
    with pytest.raises(UsageError, match="longer than every window"):
        padded_window(mel, 40, [32])


def test_signatures_are_those_of_the_windows(checkpoint):
    every = signatures(checkpoint.spec, WINDOWS)
    assert list(every["encoder.tflite"]) == ["recording_3s", "recording_8s"]
    inputs = every["encoder.tflite"]["recording_3s"]
    assert inputs.inputs["audio_signal"].shape == (1, 128, 300) and inputs.outputs["outputs"].shape == (1, 38, 176)
    assert joint_frames(checkpoint.spec) == [1, 16] and list(every["decoder.tflite"]) == ["predict", "joint_1", "joint_16"]


def test_windows_are_in_the_recipe_of_offline_models_alone(checkpoint, reference_checkpoint):
    target = litert.TARGET
    parameters = target.windowed(target.precisions["int8"], checkpoint.spec, [30, 10, 10])
    assert target.recipe("int8", parameters, checkpoint.spec).parameters == {
        "target": "litert",
        "weights": "i8",
        "windows_s": [10, 30],
    }
    assert target.windowed(target.precisions["fp32"], checkpoint.spec).windows_s == litert.WINDOWS_S
    streaming = target.windowed(target.precisions["int8"], reference_checkpoint.spec)
    assert target.recipe("int8", streaming, reference_checkpoint.spec).parameters == {"target": "litert", "weights": "i8"}
    for one, spec in ((target, reference_checkpoint.spec), (OPENVINO, checkpoint.spec)):
        with pytest.raises(UsageError, match="makes no windows"):
            one.windowed(one.precisions["fp32"], spec, [5])
    for wrong in ([0], [121], list(range(1, 10))):
        with pytest.raises(UsageError, match="cannot be made"):
            target.windowed(target.precisions["fp32"], checkpoint.spec, wrong)


def test_the_longest_window_is_the_longest_pass(checkpoint):
    spec = checkpoint.spec
    assert pass_seconds(spec, None) == 390.0 and pass_seconds(spec, None, 40) == 40 and pass_seconds(spec, 5.0, 40) == 5.0
    for seconds in (41.0, 0.0, float("inf")):
        with pytest.raises(UsageError, match="does not fit"):
            pass_seconds(spec, seconds, 40)
    assert overlap_samples(40 * 16000, 16000) == 15 * 16000 and overlap_samples(20 * 16000, 16000) == 5 * 16000


# --- the files


@pytest.mark.parametrize("variant", [FP32, "litert-fp16", "litert-int8"])
def test_the_gates_pass(build, context_of, variant):
    names = ("contract", "numeric", "tokens", "batch", "wer", "cost") if variant == FP32 else ("contract", "numeric", "wer")
    assert failing(context_of(build, variant), *names) == []


def test_weights_are_stored_once(build, checkpoint):
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(build / FP32 / litert.ENCODER))
    constants = [bytes(bytearray(b.data)) for b in model.buffers if b.data is not None and len(b.data) > 4000]
    assert len(model.signatureDefs) == 2 and len(constants) == len(set(constants)) > 10 * checkpoint.spec.encoder.n_layers


def test_a_batch_of_several_windows(build, checkpoint):
    session = open_session(Artifact.open(build / FP32), threads=1)
    mel = np.random.default_rng(0).normal(size=(2, 128, 700)).astype(np.float32)
    frames, counts, _ = session.encode(mel, np.array([200, 700]), session.initial_state(2))
    assert counts.tolist() == [25, 88] and frames.shape == (2, 88, 176) and not frames[0, 25:].any()
    with pytest.raises(UsageError, match="longer than every window"):
        session.encode(np.zeros((1, 128, 801), np.float32), np.array([801]), session.initial_state(1))


def test_a_long_recording_goes_in_windows(build, checkpoint, corpus, tmp_path):
    """As the ONNX graphs give it in passes of the same length and overlap."""
    export_checkpoint(checkpoint, tmp_path)
    samples = np.concatenate([u.samples() for u in corpus.utterances])
    assert len(samples) > 2.5 * WINDOWS[-1] * 16000
    recognizer = Recognizer.open(build / FP32, threads=1)
    onnx = Recognizer.open(tmp_path / "fp32", threads=1)
    onnx.pass_s = recognizer.pass_s
    found, wanted = (next(one.transcribe([("", samples)])) for one in (recognizer, onnx))
    assert recognizer.pass_s == WINDOWS[-1] and found.tokens == wanted.tokens and len(found.tokens) > 40
    assert found.token_seconds == wanted.token_seconds


def test_damage_is_rejected(copy, context_of, checkpoint):
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    path = copy / FP32 / litert.DECODER
    model = flatbuffer.read_model(str(path))
    n_scores = checkpoint.spec.decoding.n_scores
    buffers = {t.buffer for g in model.subgraphs for t in g.tensors if list(t.shape) == [n_scores]}
    for buffer in (model.buffers[number] for number in buffers):
        if buffer.data is not None:  # durations in another order
            bias = np.frombuffer(bytes(bytearray(buffer.data)), np.float32).copy()
            bias[-5:] += [9, 0, 0, 0, -9]
            buffer.data = np.frombuffer(bias.tobytes(), np.uint8)
    flatbuffer.write_model(model, str(path))
    damage.seal(copy / FP32)
    assert "tokens" in failing(context_of(copy), "tokens", "numeric")
    interface = copy / "litert-int8" / litert.INTERFACE
    interface.write_text(interface.read_text().replace("recording_3s", "recording_4s"))
    damage.seal(interface.parent)
    assert failing(context_of(copy, "litert-int8"), "contract") == ["contract"]


def test_longform_recordings_fit(build, context_of):
    context = context_of(build)
    context.limits = context.limits.override("longform", minutes=0.2)
    assert all(form.corpus.seconds <= WINDOWS[-1] for form, _ in context.longform(None))
    assert failing(context, "longform") == []


def test_the_package_and_its_example(copy, context_of, corpus, tmp_path):
    from nemoport.package.examples import litert_offline as example

    for variant in (FP32, "litert-int8"):
        assert all(result.passed for result in judge(context_of(copy, variant), results_path(copy, variant), ["contract"]))
    dist = package(
        copy, tmp_path / "dist", [FP32, "litert-int8"], licence="apache-2.0", layout="litert", required_passes=lambda *_: []
    )
    assert "loads in litert" in verify(dist)[-1]
    card = (dist / "README.md").read_text()
    assert "offline speech recognition in LiteRT" in card and "up to 3 or 8 s" in card and "cache" not in card
    assert json.loads((dist / "rules.json").read_text())["input_rule"] in card
    utterance = corpus.utterances[-1]
    wanted = Recognizer.open(dist / FP32, threads=1).transcribe_file(utterance.path)
    tokens, seconds, text = example.transcribe(dist, FP32, utterance.path)
    assert (tuple(tokens), text) == (wanted.tokens, wanted.text) and seconds == pytest.approx(wanted.token_seconds)
