"""Half precision: what is half, what is not, and what is refused."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from damage import copy_build, edit_weight
from onnx import TensorProto, helper, numpy_helper
from quantizing import quiet, short_manifest, snr_db, transcribed

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.caches import NemoCaches
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import ArtifactError, CorpusError
from nemoport.quantize import build_variant
from nemoport.quantize.casts import drop_round_trips, sort_nodes
from nemoport.quantize.fp16 import HALF_OPS, REPORT, Parameters, convert_graph, round_weights
from nemoport.quantize.graph import load_typed, metadata
from nemoport.quantize.overflow import FP16_MAX, Scan, scan_activations
from nemoport.speech.corpus import read_corpus

LINEAR = "/layers.2/feed_forward1/linear1/MatMul"
LINEAR_INPUT = "/layers.2/norm_feed_forward1/LayerNormalization_output_0"

pytestmark = pytest.mark.usefixtures("fewer_streams")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return short_manifest(tmp_path_factory.mktemp("calibration"))


@pytest.fixture(scope="module")
def fp16(build, manifest, tmp_path_factory):
    copy = copy_build(build, tmp_path_factory.mktemp("fp16") / "build")
    return build_variant(copy, "fp16", manifest, progress=quiet)


def graphs(artifact):
    return [onnx.load(artifact.folder / name) for name in (ENCODER, DECODER)]


def short_streams(artifact, manifest):
    """One spoken stream, to scan with."""
    corpus = read_corpus(manifest, artifact.spec.frontend.sample_rate_hz)
    streams = CalibrationStreams(corpus, artifact.spec, artifact.filterbank(), StreamParameters())
    streams.plans = streams.plans[:1]
    return streams


def test_at_least_80_percent_of_weight_bytes_are_half(fp16):
    half = single = 0
    for model in graphs(fp16):
        for weight in model.graph.initializer:
            size = numpy_helper.to_array(weight).nbytes
            half += size if weight.data_type == TensorProto.FLOAT16 else 0
            single += size if weight.data_type == TensorProto.FLOAT else 0
    assert half / (half + single) > 0.9
    fp32_bytes = sum(f.stat().st_size for f in (fp16.folder.parent / "fp32").glob("*.data"))
    assert sum(f.stat().st_size for f in fp16.folder.glob("*.data")) < 0.56 * fp32_bytes


def test_every_large_product_is_half(fp16):
    """Not only stored: a constant MatMul reads a half weight and a half activation."""
    model = graphs(fp16)[0]
    weights = {w.name: w.data_type for w in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    assert len(products) == 61  # ten in each of six layers, and the subsampling's
    assert all(weights[n.input[1]] == TensorProto.FLOAT16 for n in products)


def test_contract_is_fp32s(fp16, build):
    for name in (ENCODER, DECODER):
        was, now = (ort.InferenceSession(folder / name) for folder in (build / "fp32", fp16.folder))
        for kind in ("get_inputs", "get_outputs"):
            described = [[(v.name, v.type, v.shape) for v in getattr(s, kind)()] for s in (was, now)]
            assert described[0] == described[1]
    props = [metadata(model) for model in graphs(fp16)]
    assert all(p["nemoport.checkpoint_sha256"] == fp16.manifest.checkpoint_sha256 for p in props)


def test_lengths_above_2048_are_exact(fp16, build):
    """fp16 holds integers up to 2048; lengths are arithmetic on int64 and must stay so."""
    lengths = np.array([2047, 2049, 4097, 16401, 65521, 1_000_003])
    results = []
    for folder in (build / "fp32", fp16.folder):
        session = ort.InferenceSession(folder / ENCODER)
        feeds = {"audio_signal": np.zeros((len(lengths), 128, 121), np.float32), "length": lengths}
        for name, shape in NemoCaches.shapes(fp16.spec.streaming, len(lengths)).items():
            feeds[name] = np.zeros(shape, np.int64 if name.endswith("len") else np.float32)
        results.append(session.run(["encoded_lengths"], feeds)[0])
    assert np.array_equal(*results) and results[0][-1] > 100_000


def test_frames_and_tokens_are_close(fp16, build, eval_corpus):
    tokens, frames = transcribed(Artifact.open(build / "fp32"), eval_corpus, 6)
    half_tokens, half_frames = transcribed(fp16, eval_corpus, 6)
    assert snr_db(frames, half_frames) > 50
    assert sum(a == b for a, b in zip(tokens, half_tokens, strict=True)) >= len(tokens) - 1


def test_report_is_in_the_graph(fp16):
    report = json.loads(metadata(graphs(fp16)[0])[REPORT])
    assert report["products_kept_f32"] == [] and report["weights_kept_f32"] == []
    assert 0 < report["largest_factor"] < FP16_MAX / Parameters().headroom
    assert report["fp16_elements"] > 0.9 * report["elements"]


def test_built_again_it_is_reused(fp16, manifest):
    before = fp16.encoder.stat().st_mtime_ns
    assert build_variant(fp16.folder.parent, "fp16", manifest, progress=quiet).manifest == fp16.manifest
    assert fp16.encoder.stat().st_mtime_ns == before


def test_needs_audio(build):
    with pytest.raises(CorpusError, match="calibration"):
        build_variant(build, "fp16", None, progress=quiet)
    assert not (build / "fp16").exists()


def test_scan_finds_a_planted_overflow(build, manifest, tmp_path):
    """A norm that yields 1e5: the scan names it, its product stays f32, and the graph still agrees with fp32."""
    planted = copy_build(build, tmp_path / "build")
    edit_weight(planted, ENCODER, lambda name: name == "layers.2.norm_feed_forward1.weight", lambda w: w * 5e4)
    fp32 = Artifact.open(planted / "fp32")
    scan = scan_activations(fp32, short_streams(fp32, manifest), HALF_OPS, quiet)
    assert scan.encoder[LINEAR_INPUT] > FP16_MAX
    clean = Artifact.open(build / "fp32")
    assert scan_activations(clean, short_streams(clean, manifest), HALF_OPS, quiet).encoder[LINEAR_INPUT] < 100

    report = convert_graph(fp32.encoder, tmp_path / ENCODER, scan.encoder, Parameters())
    assert LINEAR in report["products_kept_f32"]
    frames = true_half(fp32.encoder, fp32)
    assert snr_db(frames, true_half(tmp_path / ENCODER, fp32)) > 40
    # Negative control: without the scan's figures the overflow goes through.
    convert_graph(fp32.encoder, tmp_path / f"blind_{ENCODER}", {}, Parameters())
    assert not np.isfinite(true_half(tmp_path / f"blind_{ENCODER}", fp32)).all()


def true_half(path, artifact):
    """One chunk through onnx's reference evaluator, which rounds and overflows as fp16 does; onnxruntime's CPU provider
    folds the casts and computes in f32."""
    from onnx.reference import ReferenceEvaluator

    feeds = {name: np.zeros(shape, np.float32) for name, shape in NemoCaches.shapes(artifact.spec.streaming, 1).items()}
    feeds["cache_last_channel_len"] = np.zeros(1, np.int64)
    mel = np.random.default_rng(0).standard_normal((1, 128, 49)) * 3 - 8
    with np.errstate(all="ignore"):
        evaluator = ReferenceEvaluator(onnx.load(path))
        return evaluator.run(["outputs"], {"audio_signal": mel.astype(np.float32), "length": np.array([49]), **feeds})[0]


def test_true_half_arithmetic_is_close(fp16, build):
    assert snr_db(true_half(build / "fp32" / ENCODER, fp16), true_half(fp16.encoder, fp16)) > 50


def test_nan_stops_the_scan(build, manifest, tmp_path):
    planted = copy_build(build, tmp_path / "build")
    edit_weight(planted, ENCODER, lambda name: name == "layers.2.norm_out.weight", lambda w: w * np.nan)
    fp32 = Artifact.open(planted / "fp32")
    with pytest.raises(ArtifactError, match="not numbers"):
        scan_activations(fp32, short_streams(fp32, manifest), HALF_OPS, quiet)


def tensors_of(**arrays):
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return helper.make_model(graph)


def test_weights_that_do_not_fit_are_left_alone():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((64, 64)).astype(np.float32)
    some_tiny = normal.copy()
    some_tiny[0, :3] = (1e-9, -1e-9, 1e-8)
    model = tensors_of(
        normal=normal, huge=np.where(normal > 2, 70000, normal), tiny=normal * np.float32(1e-7), some_tiny=some_tiny
    )
    refused, flushed = round_weights(model, Parameters().weight_error)
    assert refused == {"huge", "tiny"} and flushed == 3
    after = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    assert np.array_equal(after["huge"], np.where(normal > 2, 70000, normal))
    assert np.array_equal(after["normal"], normal.astype(np.float16).astype(np.float32))
    assert not after["some_tiny"][0, :3].any()  # the library would have made them 6e-8


def test_a_weight_that_overflows_keeps_its_product(build, tmp_path):
    """Weights are in bytes what the share counts: one layer kept f32 is reported and the graph runs."""
    planted = copy_build(build, tmp_path / "build")
    edit_weight(planted, ENCODER, lambda name: name == "layers.2.feed_forward1.linear1.weight", lambda w: w * 1e6)
    report = convert_graph(planted / "fp32" / ENCODER, tmp_path / ENCODER, {}, Parameters())
    assert report["weights_kept_f32"] == ["layers.2.feed_forward1.linear1.weight"]
    assert report["products_kept_f32"] == [LINEAR]


def test_too_little_half_is_refused(build, manifest, tmp_path, monkeypatch):
    planted = copy_build(build, tmp_path / "build")
    edit_weight(planted, ENCODER, lambda name: ".linear" in name or "pointwise" in name, lambda w: w * np.float32(1e-7))
    monkeypatch.setattr("nemoport.quantize.fp16.scan_activations", lambda *arguments: Scan({}, {}))
    with pytest.raises(ArtifactError, match="Too little"):
        build_variant(planted, "fp16", manifest, progress=quiet)
    assert not (planted / "fp16").exists()


def half_graph(mend: bool):
    """x * 1e5 * 1e-5 with both products kept f32, converted by the library, mended or not."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    nodes = [
        helper.make_node("Mul", ["x", "up"], ["large"], "grow"),
        helper.make_node("Mul", ["large", "down"], ["y"], "shrink"),
        helper.make_node("Mul", ["large", "down"], ["z"], "shrink_too"),
        helper.make_node("Neg", ["y"], ["negative"], "half"),
    ]
    scalars = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("up", 1e5), ("down", 1e-5))]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])  # noqa: E731
    graph = helper.make_graph(nodes, "g", [value("x")], [value("negative"), value("z"), value("large")], scalars)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    kept = ["grow", "shrink", "shrink_too"]
    model = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, node_block_list=kept)
    if mend:
        drop_round_trips(model.graph)
        sort_nodes(model.graph)
        onnx.checker.check_model(model, full_check=True)
    return model


def test_values_too_large_for_half_pass_between_nodes_kept_single():
    x = np.array([1.5, -2.0], np.float32)
    session = ort.InferenceSession(half_graph(True).SerializeToString())
    negative, z, large = session.run(None, {"x": x})
    assert np.allclose(negative, -x, rtol=1e-3) and np.allclose(z, x) and np.allclose(large, 1e5 * x)
    with pytest.raises(onnx.checker.ValidationError):  # unmended: unsorted, and one cast twice
        onnx.checker.check_model(half_graph(False))


def test_onnxconverter_common_gives_an_invalid_graph(build):
    """Why fp16.py does not use it. When this fails, the reason given there is gone."""
    float16 = pytest.importorskip("onnxconverter_common.float16")
    model = float16.convert_float_to_float16(load_typed(build / "fp32" / ENCODER), keep_io_types=True)
    with pytest.raises(Exception, match="Type Error"):
        ort.InferenceSession(model.SerializeToString())


def test_damaged_parent_is_refused(build, manifest, tmp_path):
    copy = copy_build(build, tmp_path / "build")
    data = copy / "fp32" / f"{ENCODER}.data"
    shutil.copyfile(data, tmp_path / "whole")
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        build_variant(copy, "fp16", manifest, progress=quiet)
