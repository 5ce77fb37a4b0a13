"""The layout onnx-asr, run by the real package; shards, whose tensors keep their bytes."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_asr
import onnxruntime
import pytest
from onnx import numpy_helper
from quantizing import FOR_OFFLINE, short_manifest

from nemoport.artifact import ENCODER, Artifact
from nemoport.decode import GreedyState, greedy
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.package.layouts import onnx_asr as layout
from nemoport.package.shards import parse_bytes, shard
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.runtimes.onnxruntime.session import open_graph
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec
from nemoport.speech.corpus import read_corpus

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
NAMES = {"fp32": None, "fp16": "fp16", "int8-smoothquant": "int8", "int8-dynamic": "int8-dynamic", "int8-weight": "int8-weight"}
VARIANTS = tuple(NAMES)


@pytest.fixture(scope="module")
def tdt_build(random_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline")
    export_checkpoint(read_checkpoint(str(random_checkpoint("tiny-tdt"))), folder)
    for variant in VARIANTS[1:]:
        build_variant(folder, variant, short_manifest(folder, count=FOR_OFFLINE), progress=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def laid_out(tdt_build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    layout.lay_out(tdt_build, VARIANTS, folder)
    layout.shard(folder, VARIANTS, 200_000)
    return folder


@pytest.fixture(scope="module")
def utterances():
    return sorted(read_corpus(AUDIO / "eval.jsonl", 16000).utterances, key=lambda u: u.seconds)[::7]


def test_names_are_the_published_ones(laid_out):
    names = {path.name for path in laid_out.iterdir()}
    assert names == {
        "encoder-model.onnx", "encoder-model.onnx.data", "encoder-model.fp16.onnx", "encoder-model.int8.onnx",
        "encoder-model.int8-dynamic.onnx", "encoder-model.int8-weight.onnx", "decoder_joint-model.onnx",
        "decoder_joint-model.fp16.onnx", "decoder_joint-model.int8.onnx", "decoder_joint-model.int8-dynamic.onnx",
        "decoder_joint-model.int8-weight.onnx", "nemo128.onnx", "vocab.txt", "config.json", "sharded",
    }  # fmt: skip
    lines = (laid_out / "vocab.txt").read_text().splitlines()
    assert lines[-1] == f"<blk> {len(lines) - 1}"


@pytest.mark.parametrize(("variant", "quantization"), NAMES.items())
def test_onnx_asr_says_the_same(variant, quantization, laid_out, tdt_build, utterances):
    """Its own front end, its own loop, its own session options. A random checkpoint is near ties, which 8 bits turn over."""
    theirs = onnx_asr.load_model("nemo-conformer-tdt", laid_out, quantization=quantization).with_timestamps()
    ours = Recognizer.open(tdt_build / variant)
    same, spoken = 0, 0
    for utterance in utterances:
        transcribed, wanted = theirs.recognize(utterance.samples()), next(ours.transcribe([("", utterance.samples())]))
        times = np.array(transcribed.timestamps)
        same += transcribed.text == wanted.text and np.allclose(times, wanted.token_seconds)
        spoken += len(wanted.tokens)
    assert spoken > 20 and same >= (len(utterances) if variant in ("fp32", "fp16") else 0.6 * len(utterances))


@pytest.mark.parametrize(("variant", "quantization"), NAMES.items())
def test_of_one_mel_onnx_asr_says_exactly_the_same(variant, quantization, laid_out, tdt_build, utterances):
    """What is left of its differences from nemoport is its front end: float32, and a frame of padding more."""
    theirs = onnx_asr.load_model("nemo-conformer-tdt", laid_out, quantization=quantization)
    mels, preprocess = [], theirs.asr._preprocessor
    theirs.asr._preprocessor = lambda *audio: mels.append(preprocess(*audio)) or mels[-1]
    ours = Recognizer.open(tdt_build / variant)
    for utterance in utterances:
        transcribed = theirs.recognize(utterance.samples())
        frames, lengths, _ = ours.session.encode(*mels.pop(), ours.session.initial_state(1))
        state = GreedyState.initial(ours.session.spec.decoding)
        greedy(ours.session, frames, lengths, [state])
        assert ours.text(state.tokens) == transcribed


def test_onnx_asr_batches(laid_out, utterances):
    model = onnx_asr.load_model("nemo-conformer-tdt", laid_out)
    audio = [u.samples() for u in utterances]
    assert model.recognize(audio) == [model.recognize(one) for one in audio]


def test_front_end_graph(laid_out, tdt_build, utterances):
    """By the names that the browser apps feed it: log-mel, normalised."""
    session = onnxruntime.InferenceSession(laid_out / "nemo128.onnx")
    samples = utterances[-1].samples()
    features, lengths = session.run(
        ["features", "features_lens"], {"waveforms": samples[None], "waveforms_lens": np.array([len(samples)])}
    )
    stream = Recognizer.open(tdt_build / "fp32").stream()
    stream.push(samples)
    stream.close()
    assert lengths[0] == stream.chunks[0].length
    np.testing.assert_allclose(features[0], stream.chunks[0].mel, atol=2e-3)


def test_what_onnx_asr_cannot_run_is_refused(build, tmp_path):
    with pytest.raises(UsageError, match="cache-aware"):
        layout.lay_out(build, ["fp32"], tmp_path)
    decoding = DecodingSpec(4, 1, 1, 1, 10, durations=(0, 2, 4))
    spec = ModelSpec("offline-tdt", FrontendSpec(16000, 2, 4, 4, 2, 0.0, 1.0, "per_feature"), decoding,
                     offline=OfflineSpec(1, 1, 1, 8))  # fmt: skip
    with pytest.raises(UsageError, match=r"durations \[0, 2, 4\]"):
        layout._check(spec, ["fp32"])
    with pytest.raises(UsageError, match="int8-smoothquant-signed, which is for TensorRT"):
        layout._check(spec, ["fp32", "int8-smoothquant-signed"])


def values(graph: Path) -> dict[str, bytes]:
    return {i.name: numpy_helper.to_array(i).tobytes() for i in onnx.load(graph).graph.initializer}


def test_shards_hold_the_same_tensors(tdt_build, tmp_path):
    graph = tdt_build / "fp32" / ENCODER
    paths = shard(graph, tmp_path / "sharded", 150_000)
    assert [p.name for p in paths] == [f"{ENCODER}.data.{i:03d}" for i in range(len(paths))] and len(paths) > 3
    assert all(0 < p.stat().st_size <= 150_000 for p in paths)
    assert values(tmp_path / "sharded" / ENCODER) == values(graph)
    feeds = {"audio_signal": np.random.default_rng(0).standard_normal((1, 128, 100), np.float32), "length": np.array([100])}
    one, other = (open_graph(g, threads=1).run(None, feeds) for g in (graph, tmp_path / "sharded" / ENCODER))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    again = shard(graph, tmp_path / "again", 150_000)
    assert [a.read_bytes() for a in paths] == [b.read_bytes() for b in again]


DAMAGE = {
    "missing": (lambda path: path.unlink(), "data.001: missing"),
    "renamed": (lambda path: path.rename(path.with_name("other")), "data.001: missing"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-5000]), r"data.001: \d+ bytes, \d+ needed"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_is_named(how, laid_out, tmp_path):
    shutil.copytree(laid_out / "sharded", tmp_path / "sharded")
    damage, named = DAMAGE[how]
    damage(tmp_path / "sharded" / "encoder-model.onnx.data.001")
    with pytest.raises(ArtifactError, match=named):
        open_graph(tmp_path / "sharded" / "encoder-model.onnx")


def test_a_graph_as_torch_exports_it_is_sharded(tmp_path):
    """A file for each tensor, no offset, no length, and one of the tensors in a Constant node."""
    arrays = {"first": np.arange(60, dtype=np.float32).reshape(3, 20), "second": np.arange(5, dtype=np.float32)}
    protos = {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}
    for name, proto in protos.items():
        (tmp_path / name).write_bytes(proto.raw_data)
        proto.ClearField("raw_data")
        proto.data_location = onnx.TensorProto.EXTERNAL
        proto.external_data.add(key="location", value=name)
    protos["second"].name = ""
    nodes = [
        onnx.helper.make_node("Constant", [], ["bias"], value=protos["second"]),
        onnx.helper.make_node("MatMul", ["first", "x"], ["product"]),
        onnx.helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [20, 5]), ("y", [3, 5]))]
    graph = onnx.helper.make_graph(nodes, "torch", ends[:1], ends[1:], [protos["first"]])
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "x.onnx")
    paths = shard(tmp_path / "x.onnx", tmp_path / "sharded", 250)
    assert [p.stat().st_size for p in paths] == [240, 20]
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    (found,) = open_graph(tmp_path / "sharded" / "x.onnx", threads=1).run(None, {"x": x})
    np.testing.assert_allclose(found, arrays["first"] @ x + arrays["second"], rtol=1e-5)
    (tmp_path / "second").unlink()
    with pytest.raises(ArtifactError, match="second: missing"):
        shard(tmp_path / "x.onnx", tmp_path / "again", 250)


def test_shards_that_cannot_be(tdt_build, tmp_path):
    with pytest.raises(UsageError, match="A tensor is larger than a shard"):
        shard(tdt_build / "fp32" / ENCODER, tmp_path / "a", 1000)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ArtifactError, match="nothing to shard"):
        shard(tdt_build / "shared" / "frontend.onnx", tmp_path / "b", 10**6)
    assert parse_bytes("1.5G") == 1_500_000_000 and parse_bytes("200k") == 200_000 and parse_bytes("77") == 77
    for text in ("", "G", "-1M", "much"):
        with pytest.raises(UsageError):
            parse_bytes(text)
    assert Artifact.open(tdt_build / "fp32").spec.offline
