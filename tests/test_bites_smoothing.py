"""Smoothing and the scan for overflow, rule by rule, on a small graph that is written down here."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nemoport.calibration.probe import ProbedSession
from nemoport.calibration.stream import Segment, StreamPlan
from nemoport.decode import GreedyState
from nemoport.errors import ArtifactError
from nemoport.quantize import overflow, row_ranges
from nemoport.quantize.graph import Weights
from nemoport.quantize.smoothing import Choice, Site, divide, product_error, scales, sites, smooth
from nemoport.quantize.synthetic_rows import smooth_without_audio

DIM, HEADS, FRAMES = 8, 2, 5


def node(kind, inputs, output, name="", **more):
    return helper.make_node(kind, inputs.split(), [output], name, **more)


def heads(source, result):
    """Splits the channels of a tensor [1, T, DIM] into heads [1, HEADS, T, DIM / HEADS]."""
    return [
        node("Reshape", f"{source} split", f"{result}.split"),
        node("Transpose", f"{result}.split", result, perm=[0, 2, 1, 3]),
    ]


def attention(before=(), left="h", values="h", context=()):
    """A norm, an attention and a product behind a Relu. before: nodes behind the norm; values: what k and v are computed of."""
    return [
        node("MatMul", "x pre", "ignored", "/pre_encode/out"),
        node("LayerNormalization", "x gain bias", "h", "norm", epsilon=1e-5),
        node("Shape", "h", "size", "shape"),
        *before,
        node("MatMul", f"{left} wq", "q", "q"),
        node("MatMul", f"{values} wk", "k", "k"),
        node("MatMul", f"{values} wv", "v", "v"),
        *heads("q", "q2"), *heads("k", "k2"), *heads("v", "v2"),
        node("Transpose", "k2", "k3", perm=[0, 1, 3, 2]),
        node("MatMul", "q2 k3", "scores", "scores"),
        node("Softmax", "scores", "p", axis=-1),
        *(context or [node("MatMul", "p v2", "c", "context")]),
        node("Transpose", "c", "c1", perm=[0, 2, 1, 3]),
        node("Reshape", "c1 joined", "c2"),
        node("MatMul", "c2 wo", "y", "out"),
        node("Relu", "y", "r"),
        node("MatMul", "r w2", "z", "linear2"),
        node("MatMul", "z w3", "last", "linear3"),
        node("MatMul", "x w4", "other", "of the input"),
    ]  # fmt: skip


def model_of(nodes, seed=0):
    random = np.random.default_rng(seed)
    weights = {name: random.standard_normal((DIM, DIM)) for name in ("pre", "wq", "wk", "wv", "wo", "w2", "w3", "w4")}
    weights |= {"gain": random.uniform(0.5, 2, DIM) * [1, 1, 40, 1, 1, 1, 1, 1], "bias": random.standard_normal(DIM)}
    constants = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    constants += [
        numpy_helper.from_array(np.array(value), name)
        for name, value in (("split", [1, -1, HEADS, DIM // HEADS]), ("joined", [1, -1, DIM]), ("one", 0))
    ]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)  # noqa: E731
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, DIM]) for name in ("x", "cache")]
    inputs += [helper.make_tensor_value_info("caches", TensorProto.FLOAT, [2, 1, None, DIM]), value("values"), value("p0")]
    graph = helper.make_graph(nodes, "g", inputs, [value("last"), value("other")], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


REST = [Site("r", ("linear2",), None), Site("z", ("linear3",), None), Site("x", ("of the input",), None)]
WHOLE = [Site("h", ("q", "k", "v"), "norm"), Site("c2", ("out",), "v"), *REST]
APART = [Site("h", ("q",), "norm"), Site("full", ("k", "v"), None), Site("c2", ("out",), "v"), *REST]


def joined(*parts, before=()):
    return [*before, node("Concat", " ".join(parts), "full", "join", axis=1)]


CACHES = {
    "none": (attention(), WHOLE),
    "an input": (attention(joined("cache", "h"), values="full"), WHOLE),
    "a part of an input": (
        attention(joined("part", "h", before=[node("Gather", "caches one", "part", axis=0)]), values="full"), WHOLE,
    ),
    "a copy of a part": (
        attention(
            joined("copy", "h", before=[node("Gather", "caches one", "part", axis=0), node("Identity", "part", "copy")]),
            values="full",
        ),
        WHOLE,
    ),
    "something computed": (attention(joined("more", "h", before=[node("Relu", "cache", "more")]), values="full"), APART),
    "a constant": (attention(joined("gain", "h"), values="full"), APART),
    "behind the new frames": (attention(joined("h", "cache"), values="full"), APART),
    "two of them": (attention(joined("cache", "cache", "h"), values="full"), APART),
    "another operator": (attention([node("Add", "cache h", "full", "join")], values="full"),
                         [Site("h", ("q",), None), *APART[1:]]),
    "another reader": (attention([node("Relu", "h", "more", "reader")]), [Site("h", ("q", "k", "v"), None), *WHOLE[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_and_the_frames_behind_it_are_one_site(name):
    nodes, expected = CACHES[name]
    assert sites(model_of(nodes)) == expected


SUM = [node("MatMul", "p0 {}", "c0", "old"), node("MatMul", "p {}", "c9", "new"), node("Add", "c0 c9", "c", "sum")]
CONTEXTS = {
    "of cached and of new values": (("values", "v2"), "v"),
    "of new values alone": (("v2", "v2"), None),
    "of cached values alone": (("values", "values"), None),
    "of a weight": (("values", "wo"), None),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_may_be_a_sum_over_cached_and_new_values(name):
    """It folds into the one projection that computes the values."""
    (old, new), folds_into = CONTEXTS[name]
    context = [
        node("MatMul", f"p0 {old}", "c0", "old"),
        node("MatMul", f"p {new}", "c9", "new"),
        node("Add", "c0 c9", "c", "sum"),
    ]
    found = {site.tensor: site for site in sites(model_of(attention(context=context)))}
    assert found["c2"] == Site("c2", ("out",), folds_into)


@pytest.mark.parametrize("context", [[node("Mul", "p v2", "c", "context")], [node("Add", "p c9", "c", "context")]])
def test_a_context_of_another_form_takes_a_mul(context):
    assert {site.tensor: site.folds_into for site in sites(model_of(attention(context=context)))}["c2"] is None


def test_the_error_is_that_of_the_products_in_integers():
    """Worked out by hand: activations of u8 over the tensor, weights of s8 by column."""
    weight = np.array([[127], [127]], np.float32)
    rows = lambda *values: np.array(values, np.float32)  # noqa: E731
    assert product_error(rows([0, 255], [10, 20]), [weight]) == 0
    assert product_error(rows([-1, 254], [10, 20]), [weight]) == 0  # below zero the zero point moves
    assert product_error(rows([-255, 0], [-10, -20]), [weight]) == 0
    assert product_error(rows([0, 255], [0.25, 0]), [weight]) == pytest.approx(0.25**2 / (255**2 + 0.25**2))
    assert product_error(rows([10, 255], [10.25, 20]), [weight]) == pytest.approx(0.25**2 / (265**2 + 30.25**2))
    assert product_error(rows([-10.25, -255]), [weight]) == pytest.approx(0.25**2 / 265.25**2)
    two = np.array([[127, 1.27], [0, 0.0025]], np.float32)  # the second column's step is 0.01: its 0.0025 is lost
    power = (255 * 127) ** 2 + (255 * 1.27) ** 2 + 0.1 * 0
    assert product_error(rows([255, 100]), [two]) == pytest.approx(0.25**2 / (power + 2 * 0.25 * 255 * 1.27 + 0.25**2), rel=1e-3)
    half = product_error(rows([0, 255], [0.25, 0]), [weight, weight])
    assert half == pytest.approx(0.25**2 / (255**2 + 0.25**2))
    assert product_error(rows([0, 0]), [weight]) == 0 and product_error(rows([0, 255]), [0 * weight]) == 0


def outputs(model, seed=1):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    feeds = {i.name: random.standard_normal((1, FRAMES, DIM)).astype(np.float32) for i in session.get_inputs() if i.name == "x"}
    feeds |= {
        i.name: np.zeros((2, 1, 1, DIM)[-3 - (i.name == "caches") :], np.float32) for i in session.get_inputs() if i.name != "x"
    }
    return session.run(None, feeds)


def sampled(seed=2):
    """Rows of each site, in which the third channel is an outlier; and the largest magnitudes."""
    random = np.random.default_rng(seed)
    rows = {
        t: random.standard_normal((64, DIM)).astype(np.float32) * [1, 1, 30, 1, 1, 1, 1, 1] for t in ("h", "c2", "r", "z", "x")
    }
    rows = {tensor: values.astype(np.float32) for tensor, values in rows.items()}
    return rows, {tensor: np.abs(values).max(0) for tensor, values in rows.items()}


def best(rows, largest, matrices, alphas):
    """The exponent of least error, worked out for one site alone."""
    weight = np.abs(np.concatenate(matrices, 1)).max(1)
    plain = product_error(rows, matrices)
    errors = {None: plain}
    for alpha in alphas:
        s = scales(largest, weight, alpha)
        errors[alpha] = product_error(rows / s, [w * s[:, None] for w in matrices])
    alpha = min(errors, key=errors.get)
    return Choice(alpha, errors[alpha], plain)


def test_each_site_has_the_exponent_of_least_error_and_the_function_is_the_same():
    model, alphas = model_of(attention()), (0.0, 0.5, 0.8)
    before, weights = outputs(model), Weights(model_of(attention()))
    rows, largest = sampled()
    found = sites(model)
    made = dict(smooth(model, found, largest, rows.__getitem__, alphas, mul_gain_db=0.0))
    assert list(made) == found
    for site, choice in made.items():
        if site.folds_into != "v":  # whose weight was smoothed before
            assert choice == best(rows[site.tensor], largest[site.tensor], [weights.of(m) for m in site.matmuls], alphas)
        assert choice.alpha is not None and choice.error < choice.plain_error / 4
    assert all(np.array_equal(a, b) for a, b in zip(outputs(model), before, strict=True))
    muls = {n.name: n.input[0] for n in model.graph.node if n.op_type == "Mul"}
    assert muls == {"linear2/smooth": "r", "linear3/smooth": "z", "of the input/smooth": "x"}
    changed = Weights(model)
    assert not np.array_equal(changed["gain"], weights["gain"]) and not np.array_equal(changed["bias"], weights["bias"])
    assert np.array_equal(changed["pre"], weights["pre"])


@pytest.mark.parametrize(("above", "muls"), [(1e-6, 0), (-1e-6, 1)])
def test_a_mul_has_to_be_worth_it(above, muls):
    rows, largest = sampled()
    model = model_of(attention())
    (site,) = [s for s in sites(model) if s.tensor == "r"]
    choice = best(rows["r"], largest["r"], [Weights(model).of("linear2")], (0.5,))
    gain_db = 10 * np.log10(choice.plain_error / choice.error)
    ((_, found),) = smooth(model, [site], largest, rows.__getitem__, (0.5,), mul_gain_db=gain_db + above)
    assert sum(n.op_type == "Mul" for n in model.graph.node) == muls
    assert found == (choice if muls else Choice(None, choice.plain_error, choice.plain_error))


def test_a_site_that_folds_is_smoothed_whatever_it_is_worth_and_one_that_loses_is_not():
    rows, largest = sampled()
    model = model_of(attention())
    (site,) = [s for s in sites(model) if s.tensor == "h"]
    ((_, choice),) = smooth(model, [site], largest, rows.__getitem__, (0.5,), mul_gain_db=99.0)
    assert choice.alpha == 0.5
    even = np.tile(np.float32([1, -1]), (4, DIM // 2))
    worse = {"h": np.float32([1] * (DIM - 1) + [1000])}
    ((_, choice),) = smooth(model, [site], worse, {"h": even}.__getitem__, (1.0,), mul_gain_db=0.0)
    assert choice.alpha is None and choice.error == choice.plain_error


def test_a_division_is_taken_by_the_norm_or_by_a_mul_of_its_own():
    s = np.float32([1, 2, 4, 8, 1, 1, 1, 0.5])
    for site in (WHOLE[0], WHOLE[1], REST[0]):
        model, plain = model_of(attention()), Weights(model_of(attention()))
        divide(model, Weights(model), site, s)
        changed = Weights(model)
        for name in site.matmuls:
            assert np.array_equal(changed.of(name), plain.of(name) * s[:, None])
        if site.folds_into == "norm":
            assert np.array_equal(changed["gain"], plain["gain"] / s) and np.array_equal(changed["bias"], plain["bias"] / s)
        elif site.folds_into == "v":
            assert np.array_equal(changed.of("v"), plain.of("v") / s)
        else:
            (mul,) = [n for n in model.graph.node if n.op_type == "Mul"]
            assert np.array_equal(changed[mul.input[1]], 1 / s) and changed[mul.input[1]].dtype == np.float32
            assert list(model.graph.node).index(mul) < list(model.graph.node).index(changed.node("linear2"))
            assert changed.node("linear2").input[0] == mul.output[0]


def test_without_audio_the_gain_of_a_norm_shows_its_outliers():
    model = model_of(attention())
    before, plain = outputs(model), Weights(model_of(attention()))
    smooth_without_audio(model, (0.5,))
    changed = Weights(model)
    ratio = plain["gain"] / changed["gain"]
    assert ratio.argmax() == 2 and ratio[2] >= 4 and not np.array_equal(changed.of("v"), plain.of("v"))
    assert not [n for n in model.graph.node if n.op_type == "Mul"]
    assert all(np.array_equal(a, b) for a, b in zip(outputs(model), before, strict=True))
    again = model_of(attention())
    smooth_without_audio(again, (0.5,))
    assert again == model


SILU = [node("Sigmoid", "x", "g"), node("Mul", "x g", "silu"), node("Mul", "g x", "turned"), node("Mul", "silu half", "scaled")]
SILU += [node("Mul", "half scaled", "again"), node("Mul", "silu silu", "square"), node("Mul", "half x", "of the input")]
SILU += [node("Relu", "silu", "other"), node("Mul", "other half", "behind another")]


def test_a_silu_may_be_scaled():
    producers = {one.output[0]: one for one in SILU}
    found = [name for name, one in producers.items() if row_ranges._behind_silu(one, producers)]
    assert found == ["silu", "turned", "scaled", "again"] and not row_ranges._behind_silu(None, producers)


# Overflow


def test_fp16_ends_where_numpy_says():
    assert np.finfo(np.float16).max == overflow.FP16_MAX


def test_nodes_are_unsafe_by_what_they_read_or_compute():
    model = model_of(attention())
    found = overflow.unsafe_nodes(model, {"q": 10.0, "v": 10.1, "r": float("nan"), "x": 0.0}, 10.0)
    assert found == ["v", *[n.name for n in model.graph.node if n.input[0] == "v"], "", "linear2"]


class Probed(SimpleNamespace):
    values: dict


@pytest.fixture
def scanning(monkeypatch):
    """A session of which each call gives the next outputs; its probes hold what `values` says."""
    monkeypatch.setattr(ProbedSession, "__init__", lambda self, artifact, encoder, decoder: None)
    for name in ("encode", "step"):
        monkeypatch.setattr(ProbedSession, name, lambda self, *given: (self.outputs.pop(0), given))
    probes = Probed(values={"a": np.float32(2), "b": np.float32(3)}), Probed(values={"c": np.float32(1)})
    session = overflow._ScanningSession(None, *probes)
    session.outputs = [np.zeros(3)] * 4
    return session, probes


def test_the_largest_of_all_calls_is_kept(scanning):
    session, (encoder, decoder) = scanning
    assert session.encode(1, 2, 3)[1] == (1, 2, 3) and session.step(4, 5, 6)[1] == (4, 5, 6)
    encoder.values = {"a": np.float32(1), "b": np.float32(4)}
    decoder.values = {"c": np.float32(0.5)}
    session.encode(1, 2, 3)
    session.step(1, 2, 3)
    assert session.maxima == {"encoder": {"a": 2.0, "b": 4.0}, "decoder": {"c": 1.0}}


@pytest.mark.parametrize("call", ["encode", "step"])
@pytest.mark.parametrize(("value", "output"), [(np.inf, 0.0), (np.nan, 0.0), (1.0, np.nan), (1.0, -np.inf)])
def test_what_is_not_finite_ends_the_scan(scanning, call, value, output):
    session, probes = scanning
    probes[call == "step"].values = {"a": value}
    session.outputs = [np.array([0.0, output])]
    with pytest.raises(ArtifactError, match=f"fp32 {'decoder' if call == 'step' else 'encoder'} computes"):
        getattr(session, call)(1, 2, 3)


def test_the_scan_decodes_one_stream_of_each_kind(monkeypatch, reference_checkpoint):
    speech, silence = Segment("speech"), Segment("silence", samples=1)
    plans = [StreamPlan(6, (speech,)), StreamPlan(6, (speech,)), StreamPlan(0, (silence,))]
    asked, lines, decoded = [], [], []
    monkeypatch.setattr(overflow, "load_structure", lambda path: f"graph of {path}")
    monkeypatch.setattr(overflow, "float_tensors", lambda model, ops: [model, *ops])
    monkeypatch.setattr(overflow, "Probe", lambda *given, **more: asked.append((*given, more)) or given[0])
    session = SimpleNamespace(maxima={"encoder": {"e": 1.0}, "decoder": {"d": 2.0}})
    fed = []
    session.encode = lambda mel, lengths, state: fed.append(state) or (mel, lengths, f"{state}+")
    monkeypatch.setattr(overflow, "_ScanningSession", lambda *given: asked.append(given) or session)
    monkeypatch.setattr(GreedyState, "decode", lambda _, *given: decoded.append(given))
    chunks = {id(plan): [SimpleNamespace(mel=np.full((2, 3), i), length=i) for i in range(1, 3)] for plan in plans}
    streams = SimpleNamespace(
        plans=plans, initial_state=lambda s, plan: f"{plan.lookahead}:", chunks=lambda plan: chunks[id(plan)]
    )
    parent = SimpleNamespace(encoder="E", decoder="D", spec=reference_checkpoint.spec)
    found = overflow.scan_activations(parent, streams, ["MatMul"], lines.append, threads=2)
    assert found == overflow.Scan({"e": 1.0}, {"d": 2.0})
    assert asked == [
        ("E", ["graph of E", "MatMul"], {"max_abs": True, "threads": 2}),
        ("D", ["graph of D", "MatMul"], {"max_abs": True, "threads": 2}),
        (parent, "E", "D"),
    ]
    assert [(one.done, one.total) for one in lines] == [(0, 2), (1, 2), (2, 2)]
    assert [(mel.shape, lengths.tolist(), lengths.dtype) for _, mel, lengths, _ in decoded] == [
        ((1, 2, 3), [i], np.int64) for _ in range(2) for i in (1, 2)
    ]
    assert fed == ["6:", "6:+", "0:", "0:+"]
    states = [state for *_, (state,) in decoded]
    assert states[0] is states[1] is not states[2] is states[3] and states[0].token == parent.spec.decoding.blank_id
