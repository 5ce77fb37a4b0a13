"""Weights in blocks: what is stored, what the runtime makes of it, and what error feedback is for."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantizing import correlated, one_matmul, quiet

from nemoport.artifact import Artifact
from nemoport.calibration.gram import GramCollector
from nemoport.calibration.samples import ROWS, SampleCollector
from nemoport.errors import ArtifactError, UsageError
from nemoport.quantize import build_variant
from nemoport.quantize.blocks import LIMITS, packed, round_nearest, store
from nemoport.quantize.error_feedback import inverse_factor, round_with_feedback
from nemoport.runtimes.onnxruntime.session import open_graph


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("bits", "size"), [(8, 128), (8, 32), (4, 32), (4, 16)])
@pytest.mark.parametrize("rows", [176, 64, 40])
def test_the_runtime_reads_what_was_stored(random, tmp_path, bits, size, rows):
    """With its optimizer off, so that nothing but the dequantized weight counts; and fused with it on."""
    weight, x = random.standard_normal((rows, 48)).astype(np.float32), random.standard_normal((5, rows)).astype(np.float32)
    blocks = round_nearest(weight, bits, size)
    assert np.abs(blocks.values.astype(int)).max() == -LIMITS[bits][0]
    steps = np.abs(np.repeat(blocks.scales, size, 0)[:rows])
    error = np.abs(blocks.dequantized() - weight)
    # Half a step; 4 bits have no +8, for a weight almost as large as the largest and of the other sign.
    assert error.max() <= (0.5001 if bits == 8 else 1.0001) * steps.max() and np.mean(error > 0.5001 * steps) < 0.03
    model = one_matmul(weight)
    store(model, {"m": (blocks, bits)})
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.initializer] == [f"w.int{bits}", f"w.int{bits}.scale"]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    run = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run
    assert np.allclose(run(None, {"x": x})[0], x @ blocks.dequantized(), atol=1e-4)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (node,) = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert node.op_type == "MatMulNBits" and {a.name: a.i for a in node.attribute}["bits"] == bits


def test_packing_is_onnx_own():
    values = np.array([[-8, 7, 1], [0, -1, 5]], np.int8)
    ours = helper.make_tensor("t", TensorProto.INT4, values.shape, packed(values), raw=True)
    theirs = helper.make_tensor("t", TensorProto.INT4, values.shape, values.flatten().tolist())
    assert [numpy_helper.to_array(t).astype(int).tolist() for t in (ours, theirs)] == [values.tolist()] * 2


def test_a_weight_that_two_read_stays_for_the_other(random):
    model = one_matmul(random.standard_normal((32, 16)).astype(np.float32))
    model.graph.node.append(helper.make_node("MatMul", ["x", "w"], ["z"], "other"))
    store(model, {"m": (round_nearest(numpy_helper.to_array(model.graph.initializer[0]), 8, 32), 8)})
    assert "w" in {i.name for i in model.graph.initializer} and model.graph.node[-1].input[1] == "w"


@pytest.mark.parametrize(("bits", "size"), [(5, 32), (4, 24), (8, 8)])
def test_other_blocks_are_refused(random, bits, size):
    with pytest.raises(UsageError, match="power of two"):
        round_nearest(random.standard_normal((32, 4)).astype(np.float32), bits, size)


def test_error_feedback_is_for_the_product(random):
    x, weight = correlated(random, 2000, 160), random.standard_normal((160, 24)).astype(np.float32)
    nearest, fed = round_nearest(weight, 4, 32), round_with_feedback(weight, inverse_factor(x.T @ x), 4, 32)

    def product(blocks):
        return np.square(x @ (blocks.dequantized() - weight)).sum()

    def weights(blocks):
        return np.square(blocks.dequantized() - weight).sum()

    assert fed.values.shape == nearest.values.shape and fed.scales.shape == nearest.scales.shape
    assert product(fed) < product(nearest) / 4 and weights(fed) > weights(nearest)


def test_feedback_of_independent_channels_is_none(random):
    """With H a multiple of the identity no channel can make up for another: each weight goes to its nearest step."""
    weight = random.standard_normal((64, 8)).astype(np.float32)
    blocks = round_with_feedback(weight, inverse_factor(np.eye(64, dtype=np.float32)), 4, 32)
    steps = np.repeat(blocks.scales, 32, 0)
    assert np.array_equal(blocks.values, np.clip(np.round(weight / steps), -8, 7))


def test_feedback_by_groups_is_the_plain_algorithm(random):
    """Algorithm 1 of the paper, row by row over the whole matrix, on more rows than are corrected at once."""
    x, weight = correlated(random, 3000, 300), random.standard_normal((300, 6)).astype(np.float32)
    made = round_with_feedback(weight, inverse_factor(x.T @ x), 4, 32)
    upper, rest = inverse_factor(x.T @ x), weight.astype(np.float64)
    for k in range(300):
        scale = made.scales[k // 32].astype(np.float64)
        rounded = np.clip(np.round(rest[k] / scale), -8, 7)
        assert np.mean(rounded != made.values[k]) < 0.2  # ties of float64 sums in another order
        rest[k + 1 :] -= np.outer(upper[k, k + 1 :], (rest[k] - made.values[k] * scale) / upper[k, k])


def test_a_dead_channel_is_harmless(random):
    x = correlated(random, 500, 64)
    x[:, 7] = 0
    blocks = round_with_feedback(random.standard_normal((64, 8)).astype(np.float32), inverse_factor(x.T @ x), 4, 32)
    assert np.isfinite(blocks.scales).all()


@pytest.mark.parametrize("collector", [SampleCollector, GramCollector])
def test_collectors_take_up_where_they_stopped(random, collector):
    chunks = [{"a": random.standard_normal((1, 90, 5)).astype(np.float32)} for _ in range(9)]
    whole, first = collector(["a"]), collector(["a"])
    for i, chunk in enumerate(chunks):
        whole.update(chunk)
        if i == 4:
            first = collector.from_arrays(first.to_arrays())
        first.update(chunk)
    ours, theirs = whole.to_arrays(), first.to_arrays()
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_grams_are_of_every_row_however_few_a_chunk_has(random):
    rows = random.standard_normal((1300, 5)).astype(np.float32)
    collector, at = GramCollector(["a"]), 0
    while at < len(rows):
        size = int(random.integers(1, 15))
        collector.update({"a": rows[None, at : at + size]})
        at += size
    np.testing.assert_allclose(collector.grams["a"], rows.T @ rows, rtol=1e-4, atol=1e-3)
    assert collector.summary()["a"]["rows"] == len(rows)


def test_samples_are_drawn_from_all(random):
    collector, total = SampleCollector(["a"]), 4000
    for start in range(0, total, 40):
        rows = np.arange(start, start + 40, dtype=np.float32)[:, None]
        collector.update({"a": rows})
    rows = np.sort(collector.rows("a")[:, 0])
    assert len(rows) == ROWS == len(set(rows)) and collector.max_abs["a"] == total - 1
    assert abs(rows.mean() - total / 2) < 4 * total / np.sqrt(12 * ROWS)


def test_the_weights_are_where_the_bytes_were(build, tmp_path):
    """int8-weight needs no audio; its encoder is less than a third of fp32's."""
    import shutil

    copy = shutil.copytree(build, tmp_path / "build")
    artifact = build_variant(copy, "int8-weight", None, progress=quiet)
    before, after = Artifact.open(build / "fp32").manifest.files, artifact.manifest.files
    assert after["encoder_data"].bytes < before["encoder_data"].bytes / 3
    assert artifact.manifest.corpus_digest is None


def test_a_runtime_that_is_too_old_says_so(build, tmp_path):
    """An opset that this runtime does not know stands for opset 21 in a runtime that does not know that."""
    model = onnx.load(build / "fp32" / "encoder_model.onnx")
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(ArtifactError, match="install onnxruntime 1.19 or later"):
        open_graph(tmp_path / "new.onnx")
