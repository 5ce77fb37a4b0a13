"""The edits at the boundary of a graph, on graphs small enough to be computed by hand."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nemoport.errors import ArtifactError
from nemoport.package.boundary import Port, compute_input, rewire, write_edited

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def value(name, dims, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def graph():
    """x f32 [batch, 2, n], count i64 [batch], spare i64 [batch] -> y = 2 x f32, counted = count + 1 i64, other = spare i64."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("Add", ["count", "one"], ["counted"]),
        helper.make_node("Identity", ["spare"], ["other"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [value("x", ["batch", 2, "n"]), *(value(name, ["batch"], TensorProto.INT64) for name in ("count", "spare"))],
        [value("y", ["batch", 2, "n"]), *(value(name, ["batch"], TensorProto.INT64) for name in ("counted", "other"))],
        [numpy_helper.from_array(np.ones(1, np.int64), "one")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


INPUTS = {"count": Port("frames", dtype="int32"), "x": Port("features", (0, 2, 1))}
OUTPUTS = {"counted": Port("x", dtype="int32"), "y": Port("y", (2, 0, 1), "float64")}


def run(model, feeds):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [o.name for o in session.get_outputs()], session.run(None, feeds)


def shape(one):
    kind = one.type.tensor_type
    return one.name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]


def test_names_axes_types_and_order_become_the_consumers():
    """Also where an output gets the name that an input had, and what only a dropped output needs goes."""
    model = graph()
    rewire(model, INPUTS, OUTPUTS, {"batch": 1})
    assert list(map(shape, model.graph.input)) == [
        ("frames", TensorProto.INT32, [1]), ("features", TensorProto.FLOAT, [1, "n", 2]),
    ]  # fmt: skip
    assert list(map(shape, model.graph.output)) == [
        ("x", TensorProto.INT32, [1]), ("y", TensorProto.DOUBLE, ["n", 1, 2]),
    ]  # fmt: skip
    assert "Identity" not in {node.op_type for node in model.graph.node}
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    names, (counted, y) = run(model, {"frames": np.array([4], np.int32), "features": x})
    assert names == ["x", "y"] and counted.tolist() == [5]
    np.testing.assert_array_equal(y, 2 * x.transpose(1, 0, 2))


def test_what_is_known_of_the_tensors_within_stays():
    """Without it onnxruntime fuses other nodes, and the last bits change."""
    model = graph()
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    model.graph.value_info.append(value("y", ["batch", 2, "n"]))
    rewire(model, {"x": Port("x")}, {"z": Port("z")})
    assert [one.name for one in model.graph.value_info] == ["y"]


def test_a_port_is_its_own_inverse():
    port, ours = Port("y", (2, 0, 1), "float64"), np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    there = port.outward(ours)
    assert there.shape == (4, 2, 3) and there.dtype == np.float64 and there.flags.c_contiguous
    np.testing.assert_array_equal(port.inward(there), ours)
    assert Port("y").outward(ours).dtype == np.float32


def test_a_graph_that_does_not_fit_is_refused():
    for inputs, outputs, found in (
        ({"count": Port("count")}, {"y": Port("y")}, "a use of x"),
        ({"audio": Port("x")}, OUTPUTS, "no audio"),
        (INPUTS | {"x": Port("one")}, OUTPUTS, "one"),
    ):
        with pytest.raises(ArtifactError, match="inputs and outputs of this consumer") as error:
            rewire(graph(), inputs, outputs)
        assert error.value.found == found


def test_what_a_loop_reads_around_it_stays_and_is_renamed():
    """Also behind the loop, where the exporter may put it."""
    body = helper.make_graph(
        [helper.make_node("Add", ["sum", "twice"], ["next"]), helper.make_node("Identity", ["on"], ["still"])],
        "body",
        [value("i", [], TensorProto.INT64), value("on", [], TensorProto.BOOL), value("sum", [2])],
        [value("still", [], TensorProto.BOOL), value("next", [2])],
    )
    nodes = [
        helper.make_node("Loop", ["times", "", "start"], ["total"], body=body),
        helper.make_node("Add", ["x", "x"], ["twice"]),
    ]
    weights = [numpy_helper.from_array(np.array(3), "times"), numpy_helper.from_array(np.zeros(2, np.float32), "start")]
    made = helper.make_graph(nodes, "g", [value("x", [2])], [value("total", [2])], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    rewire(model, {"x": Port("a", (0,))}, {"total": Port("b")})
    (total,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": np.array([1, 2], np.float32)})
    np.testing.assert_array_equal(total, [6, 12])


def test_an_input_may_be_computed_from_others():
    model = graph()
    rewire(model, {"x": Port("x"), "count": Port("count")}, {"y": Port("y")})
    halves = [value("left", [1, 2, 1]), value("right", [1, 2, 2])]
    compute_input(model, "x", [helper.make_node("Concat", ["left", "right"], ["x"], axis=2)], halves)
    assert [one.name for one in model.graph.input] == ["left", "right", "count"]
    left, right = np.ones((1, 2, 1), np.float32), np.full((1, 2, 2), 2, np.float32)
    _, (y,) = run(model, {"left": left, "right": right, "count": np.array([1])})
    assert y[0, 0].tolist() == [2, 4, 4]


@pytest.mark.parametrize("beside", [True, False])
def test_weights_are_the_same_bytes_beside_the_graph_or_within(beside, tmp_path):
    model = graph()
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "weight"))
    model.graph.node.append(helper.make_node("Identity", ["weight"], ["z"]))
    model.graph.output.append(value("z", [2, 3]))
    helper.set_model_props(model, {"kept": "1", "changed": "2"})
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(model, source, save_as_external_data=True, location="a.onnx.data", size_threshold=0)
    ports = {"x": Port("x"), "count": Port("count")}, {"z": Port("weights", (1, 0))}
    write_edited(source, target, lambda one: rewire(one, *ports), beside=beside, metadata={"changed": "3"})
    assert (tmp_path / "b.onnx.data").is_file() == beside
    if beside:
        assert (tmp_path / "b.onnx.data").read_bytes() == (tmp_path / "a.onnx.data").read_bytes()
    found = onnx.load(target, load_external_data=False)
    assert {p.key: p.value for p in found.metadata_props} == {"kept": "1", "changed": "3"}
    feeds = {"x": np.zeros((1, 2, 1), np.float32), "count": np.array([1])}
    np.testing.assert_array_equal(onnxruntime.InferenceSession(str(target)).run(None, feeds)[0], WEIGHT.T)
