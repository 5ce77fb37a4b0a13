"""Weights that are not finite are found wherever a graph keeps them, also where no output shows them."""

import tracemalloc

import damage
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nemoport import finite_weights
from nemoport.artifact import DECODER, Artifact
from nemoport.errors import ArtifactError
from nemoport.finite_weights import check_finite_weights, non_finite_weights
from nemoport.graph_file import save_model
from nemoport.runtimes.onnxruntime.session import OnnxSession

KINDS = {"FLOAT": np.float32, "FLOAT16": np.float16, "DOUBLE": np.float64, "BFLOAT16": np.float32}
VALUES = {"nan": np.nan, "negative nan": -np.nan, "inf": np.inf, "negative inf": -np.inf}
LARGEST = {"FLOAT": 3.4e38, "FLOAT16": 65504.0, "DOUBLE": 1.7e308, "BFLOAT16": 3.3e38}


def tensor(kind, values, raw, name="w"):
    if not raw:  # in the field of its type; a half is a varint there
        return helper.make_tensor(name, getattr(TensorProto, kind), [len(values)], values)
    if kind == "BFLOAT16":
        bits = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return helper.make_tensor(name, TensorProto.BFLOAT16, [len(values)], bits.tobytes(), raw=True)
    return numpy_helper.from_array(np.asarray(values, KINDS[kind]), name)


def model_of(*tensors, nodes=()):
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [], list(tensors)))


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_in_every_field(kind, raw, tmp_path):
    ordinary = [0.0, -0.0, 1.5, -2.0, 1e-30, LARGEST[kind], -LARGEST[kind]]
    path = tmp_path / "g.onnx"
    onnx.save(model_of(tensor(kind, ordinary, raw)), path)
    assert non_finite_weights(path) == {}
    for value in VALUES.values():
        for at in (0, 3, len(ordinary)):
            onnx.save(model_of(tensor(kind, [*ordinary[:at], value, *ordinary[at:]], raw)), path)
            assert non_finite_weights(path) == {"w": 1}, (value, at)


def test_every_place_of_a_graph(tmp_path):
    """In another file, at its first and last value and across blocks; in a constant, and in the graph of a branch."""
    values = np.zeros(3_000_001, np.float32)
    values[[0, 1 << 20, -1]] = np.nan, np.inf, -np.inf
    constant = helper.make_node("Constant", [], ["c"], value=tensor("FLOAT", [np.nan, 1.0], True, name=""))
    inner = helper.make_graph([], "branch", [], [], [tensor("FLOAT", [np.inf], True, name="inner")])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=helper.make_graph([], "other", [], []))
    integers = numpy_helper.from_array(np.full(2000, -1, np.int32), "integers")  # the bits of NaN
    model = model_of(numpy_helper.from_array(values, "w"), integers, nodes=[constant, branch])
    save_model(model, tmp_path / "g.onnx", {})
    assert (tmp_path / "g.onnx.data").stat().st_size > 12_000_000
    tracemalloc.start()
    assert non_finite_weights(tmp_path / "g.onnx") == {"w": 3, "a constant": 1, "inner": 1}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # a few blocks, whatever the size of the file
    with pytest.raises(ArtifactError, match="not finite") as caught:
        check_finite_weights(tmp_path / "g.onnx")
    assert "w: 3" in caught.value.found


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_a_half_that_two_blocks_share(block, tmp_path, monkeypatch):
    """Every half of 16 bits, in one to three bytes each as a varint."""
    bits = np.random.default_rng(0).permutation(2**16)[:3000]
    expected = int((bits & 0x7C00 == 0x7C00).sum())
    halves = helper.make_tensor("w", TensorProto.FLOAT16, [1], [0.0])
    del halves.int32_data[:]
    halves.int32_data.extend(bits.tolist())
    halves.dims[:] = [len(bits)]
    onnx.save(model_of(halves), tmp_path / "g.onnx")
    monkeypatch.setattr(finite_weights, "_BLOCK", block)
    assert expected > 50 and non_finite_weights(tmp_path / "g.onnx") == {"w": expected}


def test_what_is_no_graph_is_refused(tmp_path):
    endless = tensor("FLOAT16", [1.0], False)
    endless.int32_data[:] = [0] * 20
    onnx.save(model_of(endless), tmp_path / "g.onnx")
    long = (tmp_path / "g.onnx").read_bytes()
    assert long.count(b"\0" * 20) == 1
    (tmp_path / "g.onnx").write_bytes(long.replace(b"\0" * 20, b"\xff" * 20))
    with pytest.raises(ArtifactError, match="cannot be loaded") as caught:
        check_finite_weights(tmp_path / "g.onnx")
    assert "ten bytes" in caught.value.found
    for content in (b"", b"no graph at all"):
        (tmp_path / "g.onnx").write_bytes(content)
        with pytest.raises(ArtifactError, match="cannot be loaded"):
            check_finite_weights(tmp_path / "g.onnx")


def test_no_score_shows_nan_in_the_lstm(build, tmp_path):
    """Why weights are searched: outputs alone let this pass. When it fails, onnxruntime shows it."""
    copy = damage.copy_build(build, tmp_path / "build")
    damage.nan_in_the_lstm(copy / "fp32" / DECODER)
    damage.seal(copy / "fp32")
    artifact = Artifact.open(copy / "fp32")
    zeros = np.zeros(artifact.spec.decoding.state_shape(1), np.float32)
    frames = np.ones((1, 2, artifact.spec.encoder.d_model), np.float32)
    scores, states = OnnxSession.open(artifact).step(
        frames, np.array([artifact.spec.decoding.blank_id], np.int32), (zeros, zeros)
    )
    assert all(np.isfinite(values).all() for values in (scores, *states))
    assert list(non_finite_weights(artifact.decoder).values()) == [1]
    assert not any(non_finite_weights(path) for path in sorted(build.rglob("*.onnx")))
