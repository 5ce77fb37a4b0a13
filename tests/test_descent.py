"""4 bits nearer than error feedback leaves them: zero points, and each integer and scale again."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from quantizing import correlated, one_matmul

from nemoport.artifact import ENCODER
from nemoport.graph_file import save_model
from nemoport.quantize import int4_mixed
from nemoport.quantize.blocks import Blocks, round_nearest, store, write_stored
from nemoport.quantize.descent import COLUMNS, best_ranges, descended
from nemoport.quantize.error_feedback import inverse_factor, round_with_feedback


@pytest.fixture
def random():
    return np.random.default_rng(0)


def product_error(gram, weight, blocks):
    error = (weight - blocks.dequantized()).astype(np.float64)
    return float((error * (gram.astype(np.float64) @ error)).sum())


def test_no_other_integer_or_scale_alone_is_nearer(random):
    """After enough rounds each is the best with the others as they are, at either side of it."""
    x, weight = correlated(random, 3000, 64), random.standard_normal((64, 3)).astype(np.float32)
    gram = x.T @ x
    made = descended(weight, gram, 4, 32, 200, 1e-9)
    least = product_error(gram, weight, made)
    assert least < 0.9 * product_error(gram, weight, descended(weight, gram, 4, 32, 0, 1e-9))
    assert made.values.min() >= -8 and made.values.max() <= 7
    for row, column in np.ndindex(made.values.shape):
        for step in (-1, 1):
            values = made.values.copy()
            values[row, column] += step
            if -8 <= values[row, column] <= 7:
                assert product_error(gram, weight, replace(made, values=values)) > least
    for at in np.ndindex(made.scales.shape):
        for share in (0.999, 1.001):
            scales = made.scales.copy()
            scales[at] *= share
            assert product_error(gram, weight, replace(made, scales=scales)) > least


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_every_round_is_nearer(random, rounds):
    """Also of blocks that the rows of one step do not divide, and of a channel that is always zero."""
    x, weight = correlated(random, 2000, 300), random.standard_normal((300, 8)).astype(np.float32)
    x[:, 7] = 0
    gram = x.T @ x
    before, after = (descended(weight, gram, 4, 128, n, 0.01) for n in (rounds - 1, rounds))
    assert product_error(gram, weight, after) < product_error(gram, weight, before)


def test_what_blocks_hold_is_held(random):
    """A weight that is a block's steps comes out nearly as it is; so does one of a tensor that was never seen, and of zeros."""
    values = random.integers(-8, 8, (64, 6)).astype(np.int8)
    values[::32], values[1::32] = -8, 7
    weight = Blocks(values, np.full((2, 6), 0.25, np.float32), 32).dequantized()
    x = correlated(random, 1000, 64)
    for gram in (x.T @ x, np.zeros((64, 64), np.float32)):
        made = descended(weight, gram, 4, 32, 3, 0.01)
        assert np.abs(made.dequantized() - weight).max() < 1e-5
    empty = descended(np.zeros((64, 6), np.float32), x.T @ x, 4, 32, 2, 0.01)
    assert not empty.dequantized().any() and np.isfinite(empty.scales).all() and empty.scales.all()


@pytest.mark.parametrize("rows", [96, 300])
def test_each_integer_is_decided_behind_the_errors_before_it(random, rows):
    """The same as algorithm 1 of GPTQ, row by row with the inverse of H; a block's scales are of weights that are corrected."""
    x, weight = correlated(random, 3000, rows), random.standard_normal((rows, 9)).astype(np.float32)
    made, upper = descended(weight, x.T @ x, 4, 128, 0, 0.01), inverse_factor(x.T @ x, 0.01)
    rest, same = weight.astype(np.float64), 0
    for k in range(rows):
        if k % 128 == 0:
            block = rest[k : k + 128].astype(np.float32)
            scale, zero = best_ranges(block, (-8, 7), (np.diag(upper)[k : k + 128] ** -2.0).astype(np.float32))
            assert np.allclose(made.scales[k // 128], scale, rtol=1e-4) and np.array_equal(made.zeros[k // 128], zero)
        same += int((np.clip(np.round(rest[k] / scale + zero), -8, 7) == made.values[k]).sum())
        rest[k + 1 :] -= np.outer(upper[k, k + 1 :], (rest[k] - (made.values[k] - zero) * scale) / upper[k, k])
    assert same > 0.998 * weight.size


def test_columns_do_not_depend_on_those_beside_them(random):
    """Parts of columns are rounded on threads of their own."""
    x, weight = correlated(random, 500, 64), random.standard_normal((64, COLUMNS + 3)).astype(np.float32)
    whole, last = descended(weight, x.T @ x, 4, 32, 2, 0.01), descended(weight[:, COLUMNS:], x.T @ x, 4, 32, 2, 0.01)
    assert np.array_equal(whole.values[:, COLUMNS:], last.values) and np.array_equal(whole.zeros[:, COLUMNS:], last.zeros)


def test_a_zero_point_uses_all_integers_of_a_block_on_one_side(random):
    block = random.uniform(0.5, 1.0, (32, 40)).astype(np.float32)
    scales, zeros = best_ranges(block, (-8, 7), np.ones(32, np.float32))
    assert (zeros == -8).all() and (scales < 1.1 / 15).all()
    block -= 0.75
    counted = np.append(np.ones(32), 1e-9).astype(np.float32)
    scales, zeros = best_ranges(np.concatenate([block, np.full((1, 40), 1.75, np.float32)]), (-8, 7), counted)
    assert (scales < 1.75 / 15).all()  # a row that does not count may be cut off
    x = correlated(random, 1000, 64)
    weight = random.uniform(-0.2, 1.0, (64, 12)).astype(np.float32)
    with_them, without = descended(weight, x.T @ x, 4, 32, 0, 0.01), round_with_feedback(weight, inverse_factor(x.T @ x), 4, 32)
    assert product_error(x.T @ x, weight, with_them) < product_error(x.T @ x, weight, without) / 2


def test_zero_points_are_stored_and_multiplied_in_integers(random, tmp_path):
    weight = random.standard_normal((256, 16)).astype(np.float32) + 0.5
    fed = descended(weight, np.eye(256, dtype=np.float32), 4, 128, 0, 0.01)
    assert fed.zeros is not None and fed.zeros.any() and fed.zeros.dtype == np.int8
    model = one_matmul(weight)
    store(model, {"m": (fed, 4)})
    onnx.checker.check_model(model, full_check=True)
    types = {i.name: onnx.TensorProto.DataType.Name(i.data_type) for i in model.graph.initializer}
    assert [types[name] for name in model.graph.node[0].input] == ["INT4", "FLOAT", "INT4"]
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = random.standard_normal((3, 256)).astype(np.float32)
    exact = x @ fed.dequantized()
    assert np.abs(session.run(None, {"x": x})[0] - exact).max() < 0.01 * np.abs(exact).max()

    (node,) = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert node.op_type == "MatMulNBits" and len([name for name in node.input if name]) == 4


def test_the_recipe_of_int4_mixed_takes_both_steps(random):
    x, weight = correlated(random, 2000, 160), random.standard_normal((160, 24)).astype(np.float32)
    parameters = int4_mixed.Parameters()
    made = parameters.rounded(weight, x.T @ x)
    fed = descended(weight, x.T @ x, 4, 128, 0, 0.01)
    assert made.zeros is not None and np.array_equal(made.zeros, fed.zeros)
    assert product_error(x.T @ x, weight, made) < 0.85 * product_error(x.T @ x, weight, fed)
    nearest = int4_mixed.Parameters(rounding="nearest").rounded(weight, None)
    assert nearest.zeros is None and np.array_equal(nearest.values, round_nearest(weight, 4, 128).values)


@pytest.mark.parametrize(("factor", "kind"), [(1.0, "FLOAT16"), (1e-4, "FLOAT")])
def test_scales_are_halved_where_half_precision_holds_them(random, tmp_path, factor, kind):
    weight = (factor * random.standard_normal((256, 512))).astype(np.float32)
    model, blocks = one_matmul(weight), round_nearest(weight, 4, 128)
    save_model(one_matmul(weight), tmp_path / "parent.onnx", {})
    write_stored(model, {"m": (blocks, 4)}, SimpleNamespace(decoder=tmp_path / "parent.onnx"), tmp_path, halves=True)
    made = onnx.load(tmp_path / ENCODER)
    (scales,) = (i for i in made.graph.initializer if ".scale" in i.name)
    assert onnx.TensorProto.DataType.Name(scales.data_type) == kind
    assert np.allclose(numpy_helper.to_array(scales), blocks.scales, rtol=2**-11, atol=0)
    x = random.standard_normal((2, 256)).astype(np.float32)
    (y,) = ort.InferenceSession(tmp_path / ENCODER, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    exact = x @ blocks.dequantized()
    assert np.abs(y - exact).max() < 0.02 * np.abs(exact).max()
