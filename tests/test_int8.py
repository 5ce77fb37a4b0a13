"""INT8, dynamic and static: what is quantized and how, what is left alone, and what a wrong one does."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from damage import copy_build
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from quantizing import quiet, short_manifest, snr_db, transcribed

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.calibration.ranges import Range
from nemoport.errors import ArtifactError, CorpusError, OutputError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.quantize import build_variant, int8_static, precisions
from nemoport.quantize import saturation as pairs
from nemoport.quantize.graph import check_quantized, constant_matmuls, layer_matmuls
from nemoport.quantize.row_ranges import by_row
from nemoport.recognizer import Recognizer
from nemoport.stream import advance

pytestmark = pytest.mark.usefixtures("fewer_streams")
LAYER = [
    "feed_forward1/linear1",
    "feed_forward1/linear2",
    "self_attn/linear_q",
    "self_attn/linear_k",
    "self_attn/linear_v",
    "self_attn/linear_out",
    "conv/pointwise_conv1",
    "conv/pointwise_conv2",
    "feed_forward2/linear1",
    "feed_forward2/linear2",
]
LINEARS = sorted(f"/layers.{i}/{name}/MatMul" for i in range(6) for name in LAYER)

TOKEN_ERRORS = 0.05  # share of fp32's tokens; between what is measured of intact (0.02) and damaged artifacts (0.11)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return short_manifest(tmp_path_factory.mktemp("calibration"))


@pytest.fixture(scope="module")
def copy(build, tmp_path_factory):
    return copy_build(build, tmp_path_factory.mktemp("int8") / "build")


@pytest.fixture(scope="module")
def dynamic(copy, manifest):
    return build_variant(copy, "int8-dynamic", manifest, progress=quiet)


@pytest.fixture(scope="module")
def static(copy, manifest):
    return build_variant(copy, "int8-static", manifest, progress=quiet)


@pytest.fixture(scope="module")
def fp32_run(build, eval_corpus):
    return transcribed(Artifact.open(build / "fp32"), eval_corpus, 6)


def test_quantizing_needs_no_torch_and_no_nemo(random_checkpoint, manifest, tmp_path):
    build = export_checkpoint(read_checkpoint(str(random_checkpoint("tiny"))), tmp_path / "build").folder.parent
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'nemo', 'omegaconf'))); "
    program = blocked + "from nemoport.cli import main; print([main(['quantize', v, *sys.argv[4:]]) for v in sys.argv[1:4]])"
    options = ["--build", str(build), "--calibration", str(manifest)]
    command = [sys.executable, "-c", program, "fp16", "int8-dynamic", "int4-weight", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[0, 0, 0]"]), done.stderr[-600:]


def arrays(model):
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def encoder_of(artifact):
    return onnx.load(artifact.encoder)


def errors(reference, tokens):
    """Share of tokens that differ, by edit distance."""

    def distance(a, b):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            left, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
        return row[-1]

    return sum(map(distance, reference, tokens)) / sum(map(len, reference))


@pytest.mark.parametrize("variant", ["dynamic", "static"])
def test_every_linear_of_every_layer_and_nothing_else(variant, request):
    model = encoder_of(request.getfixturevalue(variant))
    assert sorted(int8_static.quantized_nodes(model)) == LINEARS
    kept = [n.name for n in constant_matmuls(model)]
    assert kept == ["/pre_encode/out/MatMul"]
    products = [n.name for n in model.graph.node if n.op_type == "MatMul" and "linear" not in n.name]
    assert sum(name.startswith("/layers.") and "self_attn" in name for name in products) == 18  # of two activations


@pytest.mark.parametrize("variant", ["dynamic", "static"])
def test_subsampling_is_untouched(variant, build, request):
    artifact = request.getfixturevalue(variant)
    before, after = arrays(onnx.load(build / "fp32" / ENCODER)), arrays(encoder_of(artifact))
    names = [name for name in before if name.startswith("pre_encode.")]
    assert len(names) == 12 and all(np.array_equal(before[name], after[name]) for name in names)


def test_what_quantizing_the_subsampling_does(build, fp32_run, eval_corpus, tmp_path):
    """Its six products, under 1 % of the published model's weights, put as much noise into the frames as all 60 of the
    layers. Weights are unsigned here, which saturates on no machine."""
    fp32 = Artifact.open(build / "fp32")
    nodes = {n.name for n in onnx.load(fp32.encoder, load_external_data=False).graph.node if n.op_type in ("Conv", "MatMul")}
    subsampling = sorted(name for name in nodes if name.startswith("/pre_encode/"))
    assert len(subsampling) == 6
    snr = {}
    for name, chosen in (("layers", LINEARS), ("subsampling", subsampling)):
        quantize_dynamic(
            fp32.encoder,
            tmp_path / f"{name}.onnx",
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_quantize=chosen,
            per_channel=True,
            weight_type=QuantType.QUInt8,
        )
        snr[name] = snr_db(fp32_run[1], transcribed(fp32, eval_corpus, 6, tmp_path / f"{name}.onnx")[1])
    assert snr["subsampling"] < snr["layers"] + 3, snr  # 35.2 and 35.1 dB were measured


def test_decoder_weights_are_fp16_and_its_arithmetic_f32(dynamic, build, tmp_path):
    before, after = arrays(onnx.load(build / "fp32" / DECODER)), arrays(onnx.load(dynamic.decoder))
    halved = {name.removesuffix(".half") for name in after if name.endswith(".half")}
    assert len(halved) == 10 and halved == {name for name in before if before[name].size >= 1024}
    for name in halved:
        assert np.array_equal(after[f"{name}.half"], before[name].astype(np.float16))
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    ort.InferenceSession(str(dynamic.decoder), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert not [n for n in optimized.graph.node if n.op_type == "Cast" and n.input[0].endswith(".half")]
    assert TensorProto.FLOAT16 not in {i.data_type for i in optimized.graph.initializer}


@pytest.mark.parametrize("variant", ["dynamic", "static"])
def test_weights_are_signed_symmetric_and_per_channel(variant, request):
    artifact = request.getfixturevalue(variant)
    parent = artifact.folder.with_name(artifact.manifest.recipe.parent)
    before, after = arrays(onnx.load(parent / ENCODER)), arrays(encoder_of(artifact))
    name = "layers.3.conv.pointwise_conv1.weight"
    quantized, scale = (after[f"{name}_{suffix}"] for suffix in ("quantized", "scale"))
    assert quantized.dtype == np.int8 and scale.shape == (before[name].shape[1],)
    zero = after.get(f"{name}_zero_point", np.zeros(scale.shape, np.int8))  # zero where there is none
    assert (zero.dtype, zero.shape) == (np.int8, scale.shape) and not zero.any()
    even, odd = before[name][0::2], before[name][1::2]
    least = np.maximum(np.abs(before[name]).max(0) / 127, np.where(even * odd > 0, np.abs(even + odd), 0).max(0) / 128)
    assert (scale > 0.999999 * least).all() and (scale < 1.050001 * least).all()
    assert np.abs(quantized * scale - before[name]).max() <= 0.51 * scale.max()
    assert name not in after  # the fp32 weight is gone


def test_dynamic_ranges_are_found_at_run_time(dynamic):
    model = encoder_of(dynamic)
    made = {n.output[0]: n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    dequantizers = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    read = {dequantizers[n.input[0]] for n in model.graph.node if n.op_type == "MatMul" and n.name in LINEARS}
    assert read == made.keys() and len(made) == 54  # K and V read one tensor
    assert not [n for n in model.graph.node if n.op_type in ("DynamicQuantizeLinear", "MatMulInteger")]
    assert arrays(model).keys() <= {name for n in model.graph.node for name in n.input}
    behind_silu = [name for name, zero in made.items() if zero == "row.bottom"]
    assert len(behind_silu) == 18 and all("feed_forward" in name or "/conv/" in name for name in behind_silu)
    kinds = {i.name: numpy_helper.to_array(i).dtype for i in model.graph.initializer}
    assert {kinds[zero] for zero in made.values()} == {np.dtype(np.uint8)}


def products_by_row(x, w):
    """What row_ranges.py states of an activation f32 [rows, in] that is symmetric, and of one behind a SiLU."""
    scale = np.maximum(np.abs(w).max(0), 1e-30) / 127
    w8 = np.round(w / scale)
    s = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-30) / 127
    silu = x / (1 + np.exp(-x))
    low, high = silu.min(-1, keepdims=True), silu.max(-1, keepdims=True)
    t = np.maximum(high - low, 1e-30) / 255
    symmetric = s * (np.clip(np.round(x / s), -128, 127) @ w8) * scale
    return symmetric, t * (np.round((silu - low) / t) @ w8) * scale + low * (w8.sum(0) * scale)


def test_a_row_has_its_own_range(tmp_path):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 32)).astype(np.float32)
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("MatMul", ["x", "w"], ["a"], "a"),
        make("Sigmoid", ["x"], ["g"]),
        make("Mul", ["x", "g"], ["silu"]),
        make("MatMul", ["silu", "w"], ["b"], "b"),
    ]
    shapes = [info(name, TensorProto.FLOAT, [None, None, 32]) for name in "ab"]
    given = info("x", TensorProto.FLOAT, [None, None, 64])
    graph = onnx.helper.make_graph(nodes, "g", [given], shapes, [numpy_helper.from_array(w, "w")])
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)]), fp32)
    options = {"MatMulConstBOnly": True}
    quantize_dynamic(fp32, int8, weight_type=QuantType.QInt8, per_channel=True, extra_options=options)
    model = onnx.load(int8)
    by_row(model)
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] == 2 and not kinds["MatMul"] + kinds["Cast"] + kinds["DequantizeLinear"]
    x = (rng.standard_normal((2, 5, 64)) * np.geomspace(1e-3, 100, 10).reshape(2, 5, 1)).astype(np.float32)
    x[1, 2] = 0
    found = session.run(None, {"x": x})
    for one, expected in zip(found, products_by_row(x.astype(np.float64), w), strict=True):
        assert np.abs(one - expected).max(-1) == pytest.approx(0, abs=2e-4 * np.abs(expected).max())
        assert not one[1, 2].any()
    for row in np.ndindex(2, 5):  # alone, each gives the same bits
        alone = session.run(None, {"x": x[row][None, None]})
        assert all(np.array_equal(a[0, 0], one[row]) for a, one in zip(alone, found, strict=True))


@pytest.mark.parametrize("variant", ["int8-dynamic", "int8-dynamic-by-batch"])
def test_a_loud_neighbour_changes_nothing(variant, copy, manifest, eval_corpus):
    """But where a range is that of the batch."""
    recognizer = Recognizer.open(build_variant(copy, variant, manifest, progress=quiet).folder, threads=1)
    samples = eval_corpus.utterances[0].samples()
    noise = (3 * np.random.default_rng(0).standard_normal(len(samples))).clip(-8, 8).astype(np.float32)

    def frames(*audio):
        streams = [recognizer.stream() for _ in audio]
        for stream, one in zip(streams, audio, strict=True):
            stream.push(one)
            stream.close()
        out = []
        while streams[0].chunks:
            out.append(advance(recognizer.session, streams)[0])
        return np.concatenate(out)

    same = np.array_equal(frames(samples), frames(samples, noise))
    assert same == (variant != "int8-dynamic-by-batch")


def test_static_activations_are_u8_with_the_calibrated_ranges(static):
    model = encoder_of(static)
    after = arrays(model)
    quantizers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(quantizers) == 54 and all(after[n.input[2]].dtype == np.uint8 for n in quantizers)
    assert not any(n.op_type == "MatMulInteger" for n in model.graph.node)
    summaries = [json.loads(p.read_text()) for p in (static.folder.parent / "calibration").glob("*/summary.json")]
    (ranges,) = (one for one in summaries if any("p99.999" in row for row in one.values()))  # smoothing keeps others there
    for node in quantizers:
        low, high = ranges[node.input[0]]["p99.999"]
        step = (max(high, 0) - min(low, 0)) / 255
        assert after[node.input[1]] == pytest.approx(step, rel=1e-4)
        assert after[node.input[2]] == pytest.approx(-min(low, 0) / step, abs=1)


def test_outputs_of_products_are_not_quantized(static):
    model = encoder_of(static)
    products = {n.output[0] for n in model.graph.node if n.op_type == "MatMul"}
    assert not products.intersection(n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear")


@pytest.mark.parametrize("variant", ["dynamic", "static"])
def test_it_still_hears(variant, request, eval_corpus, fp32_run):
    artifact = request.getfixturevalue(variant)
    tokens, frames = transcribed(artifact, eval_corpus, 6)
    assert snr_db(fp32_run[1], frames) > 28
    assert errors(fp32_run[0], tokens) < TOKEN_ERRORS
    size = sum(f.stat().st_size for f in artifact.folder.glob("encoder*.data"))
    assert size < 0.32 * (artifact.folder.parent / "fp32" / f"{ENCODER}.data").stat().st_size


@pytest.mark.parametrize("variant", ["dynamic", "static"])
def test_swapped_scales_show(variant, request, eval_corpus, fp32_run, tmp_path):
    """Negative control: the largest channel of each weight gets the smallest scale, and so on."""
    artifact = request.getfixturevalue(variant)
    model = encoder_of(artifact)
    for weight in model.graph.initializer:
        if weight.name.endswith(".weight_scale"):
            scales = numpy_helper.to_array(weight).copy()
            order = scales.argsort()
            scales[order] = scales[order[::-1]]
            weight.CopyFrom(numpy_helper.from_array(scales, weight.name))
    onnx.save(model, tmp_path / ENCODER)
    tokens, frames = transcribed(artifact, eval_corpus, 6, tmp_path / ENCODER)
    assert snr_db(fp32_run[1], frames) < 15
    assert errors(fp32_run[0], tokens) > TOKEN_ERRORS


def test_wrong_ranges_show(copy, eval_corpus, fp32_run, tmp_path):
    """Negative control: ranges far too narrow, as calibration on silence alone would give."""
    fp32 = Artifact.open(copy / "fp32")
    nodes = layer_matmuls(onnx.load(fp32.encoder, load_external_data=False))
    narrow = {node.input[0]: Range(-0.2, 0.2) for node in nodes}
    int8_static.quantize(fp32, tmp_path, [n.name for n in nodes], narrow, {}, int8_static.Parameters())
    tokens, _ = transcribed(fp32, eval_corpus, 6, tmp_path / ENCODER)
    assert errors(fp32_run[0], tokens) > 0.5


def test_a_stream_in_a_batch_is_quantized_as_alone(static):
    """Static ranges: a loud neighbour changes nothing. (Dynamic ranges are of the whole batch.)"""
    from nemoport.runtimes.onnxruntime.session import OnnxSession

    session = OnnxSession.open(static, threads=1)
    rng = np.random.default_rng(0)
    mel = (rng.standard_normal((2, 128, 65)) * 3 - 8).astype(np.float32)
    mel[1] += 6
    together, _, _ = session.encode(mel, np.array([65, 65]), session.initial_state(2))
    alone, _, _ = session.encode(mel[:1], np.array([65]), session.initial_state(1))
    assert np.abs(together[0] - alone[0]).max() < 1e-4


def test_manifest_says_how_and_from_what(dynamic, static, manifest):
    assert dynamic.manifest.corpus_digest == static.manifest.corpus_digest  # by its parent, which was made with the audio
    assert static.manifest.recipe.parent == "fp32"
    parameters = static.manifest.recipe.parameters
    assert parameters["method"] == "percentile" and parameters["streams"]["cold"] is False
    parameters = {"by_row": True, "per_channel": True, "pair_limit": 128, "operators": "qdq", "parent": "smoothed"}
    assert dynamic.manifest.recipe.parameters == parameters
    parent = Artifact.open(static.folder.parent / "fp32")
    assert static.manifest.parent_digest == parent.manifest.digest
    props = {p.key: p.value for p in onnx.load(static.encoder, load_external_data=False).metadata_props}
    assert set(props) == {"nemoport.spec", "nemoport.checkpoint_sha256"}
    static.verify_files()


def test_reused_by_digest_and_never_overwritten(static, manifest, tmp_path):
    build = static.folder.parent
    before = static.encoder.stat().st_mtime_ns
    assert build_variant(build, "int8-static", manifest, progress=quiet).manifest == static.manifest
    other = short_manifest(tmp_path, first=10, count=10)
    with pytest.raises(OutputError, match="calibration audio"):
        build_variant(build, "int8-static", other, progress=quiet)
    assert static.encoder.stat().st_mtime_ns == before


def test_unusable_input(copy, manifest, tmp_path):
    with pytest.raises(UsageError, match="fp16, int2-weight, int4-mixed, int4-weight, int8-dynamic") as error:
        build_variant(copy, "int5", manifest, progress=quiet)
    assert "'int5'" in str(error.value)
    with pytest.raises(CorpusError, match="--calibration"):
        build_variant(copy, "int8-static", None, progress=quiet)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(CorpusError, match="no utterance"):
        build_variant(copy, "int8-static-cold", tmp_path / "empty.jsonl", progress=quiet)
    with pytest.raises(ArtifactError, match="no artifact"):
        build_variant(tmp_path, "int8-dynamic", None, progress=quiet)
    short = short_manifest(tmp_path, count=2)
    with pytest.raises(CorpusError, match="too short"):
        build_variant(copy, "int8-static-cold", short, progress=quiet)
    assert not (copy / "int8-static-cold").exists()


def test_the_files_are_the_registry():
    weight_only = {"int8-weight", "int4-weight", "int4-mixed", "int2-weight"}
    integers = {"int8-dynamic", "int8-static", "int8-smoothquant", "int8-smoothquant-signed"}
    assert {"fp16", "smoothed"} | integers | weight_only == set(precisions())
    assert not {"graph", "casts", "overflow", "pairs"}.intersection(precisions())


def test_wrong_sets_of_nodes_are_refused():
    with pytest.raises(ArtifactError, match="did not quantize"):
        check_quantized(LINEARS[:-1], LINEARS)
    with pytest.raises(ArtifactError, match="nothing to quantize"):
        layer_matmuls(onnx.ModelProto())


def test_no_integer_types_leak_into_the_contract(dynamic, static, build):
    def contract(path):
        model = onnx.load(path, load_external_data=False)
        return [(v.name, v.type.tensor_type.elem_type) for v in [*model.graph.input, *model.graph.output]]

    expected = contract(build / "fp32" / ENCODER)
    assert contract(dynamic.encoder) == contract(static.encoder) == expected
    assert {t for _, t in expected} == {TensorProto.FLOAT, TensorProto.INT64}


def test_signed_activations_have_no_zero_point(copy, manifest, fp32_run, eval_corpus):
    artifact = build_variant(copy, "int8-smoothquant-signed", manifest, progress=quiet)
    model = encoder_of(artifact)
    zero_points = [arrays(model)[n.input[2]] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {z.dtype for z in zero_points} == {np.dtype(np.int8)} and not any(z.any() for z in zero_points)
    assert sorted(int8_static.quantized_nodes(model)) == LINEARS
    tokens, frames = transcribed(artifact, eval_corpus, 6)
    assert errors(fp32_run[0], tokens) < TOKEN_ERRORS and snr_db(fp32_run[1], frames) > 26  # half the steps for what has one sign


def saturating_product(x, w):
    """u8 [n, k] times s8 [k, m] as vpmaddubsw and its like have it: pairs of products added in 16 bits, saturating."""
    pairs = x.astype(np.int32)[:, :, None] * w.astype(np.int32)[None]
    return np.clip(pairs[:, 0::2] + pairs[:, 1::2], -(2**15), 2**15 - 1).sum(1)


def integer_product(x, w):
    """The same as onnxruntime has it on this processor."""
    types = {"x": TensorProto.UINT8, "y": TensorProto.INT32}
    reads, gives = ([onnx.helper.make_tensor_value_info(name, types[name], [None, None])] for name in types)
    product = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([product], "product", reads, gives, [numpy_helper.from_array(w, "w")])
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("variant", ["int8-dynamic", "int8-static", "int8-smoothquant"])
def test_no_product_saturates(variant, copy, manifest):
    """All activations at 255: two neighbours of one sign sum to most then, and two of different signs to less than one alone."""
    artifact = build_variant(copy, variant, manifest, progress=quiet)
    weights = {name: w for name, w in arrays(encoder_of(artifact)).items() if w.dtype == np.int8 and w.ndim == 2}
    assert len(weights) == 60
    for name, weight in weights.items():
        x = np.full((2, len(weight)), 255, np.uint8)
        exact = x.astype(np.int64) @ weight
        assert np.array_equal(saturating_product(x, weight), exact), name
        assert np.array_equal(integer_product(x, weight), exact), name


@pytest.mark.parametrize("variant", ["int8-dynamic-full-range", "int8-static-full-range", "int8-smoothquant-full-range"])
def test_weights_of_full_range_saturate(variant, copy, manifest):
    weights = arrays(encoder_of(build_variant(copy, variant, manifest, progress=quiet)))
    weight = weights["layers.0.feed_forward1.linear2.weight_quantized"]
    x = np.full((1, len(weight)), 255, np.uint8)
    assert np.abs(weight.astype(int)).max() == 127 and (saturating_product(x, weight) != x.astype(np.int64) @ weight).any()


def noise(weight, scales):
    return np.square(pairs.round_columns(weight, scales) * scales - weight).sum()


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_pairs_keep_the_limit(rows):
    normal = np.random.default_rng(rows).standard_normal((rows, 500))
    kinds = [normal, normal**5, np.round(normal * 8) / 16, np.abs(normal), np.ones((rows, 1)), np.zeros((rows, 1))]
    weight = np.concatenate(kinds, 1).astype(np.float32)
    scales = pairs.column_scales(weight)
    rounded = pairs.round_columns(weight, scales)
    assert pairs.pair_sums(rounded.astype(int)).max(initial=0) <= 128 and np.abs(rounded.astype(int)).max() <= 127
    assert (np.abs(rounded * scales - weight) <= scales * 0.50001).all() and scales[-1] == 1
    largest = np.abs(weight).max(0) / 127
    full = np.where(largest > 0, largest, 1).astype(np.float32)
    assert (full <= scales).all() and (scales <= 2.1 * full).all()
    simple = np.maximum(full, pairs.pair_sums(weight).max(0, initial=0) / 127)  # rounding adds up to 1 to a pair
    assert noise(weight, scales) < noise(weight, simple) or rows == 1
    assert set(np.abs(pairs.round_columns(weight, full)).max(0)[weight.any(0)]) == {127}
