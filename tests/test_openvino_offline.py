"""OpenVINO of offline models: the same tokens as NeMo, any length, damage that the gates find, the package; what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import damage
import numpy as np
import pytest

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.targets import export_target, targets
from nemoport.package.assemble import package
from nemoport.package.examples import openvino_offline as example
from nemoport.package.verify import verify
from nemoport.pipeline.variants import planned_variants
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.runtimes.openvino.graphs import ENCODER, JOINT, METADATA
from nemoport.speech.corpus import read_corpus
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS, GateResult, artifact_sha256
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.result_store import results_path, write_results

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
REFERENCE = Path(__file__).parent.parent / "reference"
FP32, INT8 = "openvino-fp32", "openvino-int8"


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo"))


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino-offline") / "build"
    for precision in ("fp32", "int8"):
        export_target(checkpoint, folder, "openvino", precision, None, progress=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def corpus():
    whole = read_corpus(REFERENCE / "audio" / "eval-tdt.jsonl", 16000)
    by_length = sorted(whole.utterances, key=lambda u: u.seconds)
    return replace(whole, utterances=(*by_length[20:160:20], by_length[-1]))


@pytest.fixture(scope="module")
def context_of(checkpoint, corpus, tmp_path_factory):
    pytest.importorskip("nemo")
    oracle = record_oracle(checkpoint, corpus, tmp_path_factory.mktemp("oracle"))
    return lambda folder, variant=FP32: Context(folder / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "build")


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def edit(folder, graph, change):
    path = folder / FP32 / f"{graph}.xml"
    model = openvino.Core().read_model(path)
    change(model)
    openvino.save_model(model, path.with_name("edited.xml"), compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        path.with_name(f"edited{suffix}").replace(path.with_suffix(suffix))
    damage.seal(folder / FP32)


def change_weights(kind, change):
    from openvino import opset13 as opset

    def changed(model):
        products = [op for op in model.get_ops() if op.get_type_name() == "MatMul" and kind in op.get_friendly_name()]
        assert products
        for product in products:
            weight = product.input_value(1).get_node().get_data().astype(np.float32)
            product.input(1).replace_source_output(opset.constant(change(weight)).output(0))

    return changed


@pytest.mark.parametrize("variant", [FP32, INT8])
def test_the_gates_pass(made, context_of, variant):
    assert [r.evidence for r in gates.run_gate("contract", context_of(made, variant)) if r.status != PASS] == []
    names = ("tokens", "numeric", "boundary", "batch", "wer", "words") if variant == FP32 else ("tokens", "numeric", "cost")
    assert failing(context_of(made, variant), *names) == []


@pytest.mark.parametrize(
    ("graph", "kind", "change", "gate"),
    [
        (ENCODER, "feed_forward1/linear1", damage.shuffle_scales, "numeric"),
        (ENCODER, "linear_pos", lambda w: w * 0, "tokens"),
        (JOINT, "head", lambda w: np.roll(w, 1, 0 if w.shape[0] > w.shape[1] else 1), "wer"),
    ],
    ids=["scales in another order", "no positions", "another vocabulary"],
)
def test_damaged_weights_are_rejected(copy, context_of, graph, kind, change, gate):
    edit(copy, graph, change_weights(kind, change))
    assert failing(context_of(copy), gate) == [gate]


def test_any_length_and_lengths_that_differ(made):
    """Longer than a block of the attention and of the subsampling; what stands behind a recording has no effect."""
    session = open_session(Artifact.open(made / FP32), threads=1)
    mel = np.random.default_rng(0).normal(size=(2, 128, 2500)).astype(np.float32)
    frames, counts, _ = session.encode(mel, np.array([2500, 700]), session.initial_state(2))
    assert counts.tolist() == [313, 88]
    alone, _, _ = session.encode(mel[1:, :, :700], np.array([700]), session.initial_state(1))
    assert np.abs(frames[1, :88] - alone[0]).max() < 1e-4


def test_weights_in_8_bits_are_those_of_the_layers(made, checkpoint):
    from nemoport.export.targets.openvino.compress import compressed

    names = compressed(openvino.Core().read_model(made / INT8 / f"{ENCODER}.xml"))
    assert len(names) == 11 * checkpoint.spec.encoder.n_layers and not [n for n in names if n.startswith("/pre_encode")]


def test_the_package_and_its_example(made, corpus, tmp_path):
    build = shutil.copytree(made, tmp_path / "build")
    for variant in (FP32, INT8):
        sha256 = artifact_sha256(build / variant)
        result = GateResult("wer", variant, sha256, PASS, "all lookaheads: difference", 0.0, 0.3, "WER points", 9)
        write_results(results_path(build, variant), [result])
    packed = package(
        build, tmp_path / "dist", [FP32, INT8], licence="apache-2.0", layout="openvino", required_passes=lambda *_: []
    )
    assert f"{INT8}: loads in openvino" in "\n".join(verify(packed))
    card = (packed / "README.md").read_text()
    assert "offline speech recognition in OpenVINO" in card and "durations" in card.lower()
    for absent in ("cache", "onnxruntime", "ONNX", "input_states_1", "encoded_lengths", "audio_signal"):
        assert absent not in card, absent
    utterance = corpus.utterances[3]
    expected = Recognizer.open(packed / "fp32", threads=1).transcribe_file(utterance.path)
    tokens, seconds, text = example.transcribe(packed / "fp32", utterance.path)
    assert (tuple(tokens), text) == (expected.tokens, expected.text) and len(tokens) > 3
    assert seconds == pytest.approx(expected.token_seconds)
    assert "durations" in (packed / "fp32" / METADATA).read_text()


def test_what_has_no_caches_is_refused_by_name(checkpoint, tmp_path):
    """Where it is named; where all of a target's are wanted it is left out."""
    with pytest.raises(UsageError, match="openvino-stateful-int8 cannot be made of this model") as refused:
        export_target(checkpoint, tmp_path, "openvino", "stateful-int8", None, progress=print)
    assert "offline-tdt: it keeps no caches" in str(refused.value) and not list(tmp_path.iterdir())
    planned = [one.name for one in planned_variants(checkpoint.spec, ["openvino"])]
    assert planned == ["openvino-fp32", "openvino-fp16", "openvino-int8"]
    with pytest.raises(UsageError, match="openvino-kv-int8 cannot be made of this model"):
        planned_variants(checkpoint.spec, ["openvino"], ["kv-int8"])
    assert targets()["onnx"].precisions_of(checkpoint.spec) == ["fp32"]


def test_buffered_streaming_is_refused_by_name(random_checkpoint):
    spec = read_checkpoint(str(random_checkpoint("tiny-unified"))).spec
    found = {name: target.precisions_of(spec) for name, target in targets().items()}
    assert found.pop("onnx") == ["fp32"] and not any(found.values())
    with pytest.raises(UsageError, match="the window of its attention"):
        targets()["openvino"].check_precision("fp32", spec)
