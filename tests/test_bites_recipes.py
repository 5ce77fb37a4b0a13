"""What a recipe computes from numbers, and what a config must say: each rule alone, and every key that is read."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import samples
from onnx import TensorProto, helper, numpy_helper

from nemoport.calibration.ranges import Range, RangeCollector
from nemoport.calibration.stream import CalibrationStreams, Segment, StreamParameters, StreamPlan
from nemoport.errors import ArtifactError, CorpusError, UsageError
from nemoport.export.hyperparameters import NUMBERS, malformed, number
from nemoport.export.kinds import KINDS, kind_of
from nemoport.export.one_form import in_one_form
from nemoport.export.unsupported import unsupported
from nemoport.frontend import mel_filterbank
from nemoport.package.layouts import onnx_asr
from nemoport.quantize.blocks import Blocks, packed
from nemoport.quantize.error_feedback import best_scales, inverse_factor, round_with_feedback
from nemoport.quantize.fp16 import Parameters, convert_graph
from nemoport.quantize.int4_mixed import Mix
from nemoport.quantize.overflow import FP16_MAX, one_of_each
from nemoport.quantize.sensitivity import Cost
from nemoport.quantize.smoothing import Site
from nemoport.quantize.synthetic_rows import ROWS, synthetic_rows
from nemoport.spec import ModelSpec

# fp16


def product_graph(path):
    """y = (x W) V, with products of one name each."""
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32])  # noqa: E731
    weights = [numpy_helper.from_array(np.eye(32, dtype=np.float32), name) for name in "WV"]
    nodes = [helper.make_node("MatMul", ["x", "W"], ["h"], "first"), helper.make_node("MatMul", ["h", "V"], ["y"], "second")]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.mark.parametrize(
    ("magnitudes", "kept"),
    [
        ({"x": 0.249, "h": 0.249, "y": 0.249}, []),
        ({"x": 0.251}, ["first"]),  # what a product reads
        ({"y": 0.251}, ["second"]),  # what it computes
        ({"h": 0.251}, ["first", "second"]),
        ({"h": float("nan")}, ["first", "second"]),
    ],
)
def test_a_product_within_a_factor_of_four_of_fp16s_largest_value_stays_f32(magnitudes, kept, tmp_path):
    assert Parameters().headroom == 4.0
    product_graph(tmp_path / "in.onnx")
    shares = {name: share * FP16_MAX for name, share in magnitudes.items()}
    report = convert_graph(tmp_path / "in.onnx", tmp_path / "out.onnx", shares, Parameters())
    assert report["products_kept_f32"] == kept
    halves = sum(i.data_type == TensorProto.FLOAT16 for i in onnx.load(tmp_path / "out.onnx").graph.initializer)
    assert halves == 2 - len(kept)


# Streams of calibration audio

SPEC = ModelSpec.from_dict(samples.SPEC)


def streams(seconds=(4.03, 9.1, 3.3, 7.77, 2.0, 5.05)):
    rng = np.random.default_rng(0)
    sounds = [rng.standard_normal(round(s * 16000)).astype(np.float32) * 0.1 for s in seconds]
    utterances = [
        SimpleNamespace(seconds=s, samples=sound.copy, id="", language="", prompt_language="")
        for s, sound in zip(seconds, sounds, strict=True)
    ]
    corpus = SimpleNamespace(utterances=utterances, path="calibration.jsonl")
    return CalibrationStreams(corpus, SPEC, mel_filterbank(SPEC.frontend), StreamParameters())


def test_the_overflow_scan_hears_speech_and_silence_at_each_lookahead():
    found = [(plan.lookahead, tuple(s.kind for s in plan.segments)) for plan in one_of_each(streams().plans)]
    for lookahead in SPEC.lookaheads:
        kinds = [set(kinds) for at, kinds in found if at == lookahead]
        assert len(kinds) == 2 and {"speech"} in kinds and {"speech", "silence", "noise"} in kinds
    speech, silence = Segment("speech"), Segment("silence", samples=1)
    plans = [StreamPlan(6, (speech,)), StreamPlan(6, (speech, speech)), StreamPlan(6, (silence,)), StreamPlan(0, (silence,))]
    assert list(one_of_each(plans)) == [plans[0], plans[2], plans[3]]


def test_no_padding_enters_the_ranges():
    """Every window of a streaming model is full: a part of one would be zeros behind its frames, which no stream has."""
    made = streams()
    for plan in made.plans[:4]:
        chunks = list(made.chunks(plan))
        assert len(chunks) > 3 and all(chunk.length == chunk.mel.shape[1] for chunk in chunks)
        assert all(chunk.mel[:, -1].any() for chunk in chunks)


@pytest.mark.parametrize("seed", range(5))
def test_ranges_do_not_depend_on_order_or_chunks(seed):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(5000) * np.exp(4 * rng.standard_normal(5000))).astype(np.float32)
    whole, parts = RangeCollector(["x"]), RangeCollector(["x"])
    whole.update({"x": values})
    for part in np.array_split(rng.permutation(values), 17):
        parts.update({"x": part})
    assert np.array_equal(whole.counts, parts.counts)
    assert [whole.ranges(*m) for m in (("minmax",), ("percentile", 99.0))] == [
        parts.ranges(*m) for m in (("minmax",), ("percentile", 99.0))
    ]


def collected(*values):
    collector = RangeCollector(["x", "y"])
    for one in values:
        collector.update({"x": np.array(one, np.float32), "y": np.array([[-0.5], [0.25]], np.float32)})
    return collector


def test_a_range_is_the_outer_edge_of_the_bin_that_holds_the_percentile():
    """1000 values from -1 to 1 and one of 7.5: the histogram spans +-8, in bins of 1 / 512."""
    collector = collected(np.linspace(-1, 1, 1000), [7.5])
    assert (collector.exponent.tolist(), collector.bin_width("x"), collector.bin_width("y")) == ([3, 0], 1 / 512, 1 / 4096)
    assert collector.ranges("minmax") == {"x": Range(-1.0, 7.5), "y": Range(-0.5, 0.25)}
    assert collector.ranges("percentile") == collector.ranges("minmax")
    found = collector.ranges("percentile", 99.0)["x"]
    assert found.high == np.ceil(512 * np.linspace(-1, 1, 1000)[990]) / 512  # 991 of 1001 are at or below it
    assert found.low == np.floor(512 * np.linspace(-1, 1, 1000)[10]) / 512
    assert collector.ranges("percentile", 99.95)["x"].high == 7.5  # no further out than the extremes
    for method, percentile in (("percentile", 50.0), ("percentile", 100.1), ("entropy", 99.0)):
        with pytest.raises(UsageError, match="calibration method is unknown"):
            collector.ranges(method, percentile)
    assert collector.ranges("percentile", 50.1) and RangeCollector(["x"]).exponent.tolist() == [-20]
    with pytest.raises(CorpusError, match="collected nothing"):
        RangeCollector(["x"]).ranges("minmax")
    with pytest.raises(ArtifactError, match="tensor x is not finite"):
        collected([-np.inf, 1.0])


def test_a_collector_is_the_one_of_its_arrays():
    collector = collected([-3.0, 2.0], [0.0])
    made = RangeCollector.from_arrays(collector.to_arrays())
    assert made.tensors == ["x", "y"] and made.to_arrays().keys() == {"tensors", "low", "high", "exponent", "counts"}
    made.update({"x": np.array([5.0], np.float32), "y": np.array([0.1], np.float32)})
    collector.update({"x": np.array([5.0], np.float32), "y": np.array([0.1], np.float32)})
    assert all(np.array_equal(array, collector.to_arrays()[name]) for name, array in made.to_arrays().items())
    assert made.counts.sum(1).tolist() == [4, 5]


def test_the_summary_has_the_extremes_and_three_percentiles():
    collector = collected(np.linspace(-1, 1, 1000))
    found = collector.summary()
    assert found.keys() == {"x", "y"} and list(found["x"]) == ["minmax", "p99.9", "p99.99", "p99.999"]
    assert found["y"]["minmax"] == [-0.5, 0.25]
    for percentile in (99.9, 99.99, 99.999):
        one = collector.ranges("percentile", percentile)["x"]
        assert found["x"][f"p{percentile:g}"] == [one.low, one.high]
    assert found["x"]["p99.9"][1] < found["x"]["minmax"][1] + 1e-9


# Weights


def test_groups_are_ranked_by_noise_per_weight():
    """The large group costs more in all, the small one for its bytes."""
    blocks = {name: Blocks(np.zeros(shape, np.int8), np.ones((1, shape[1]), np.float32), 16) for name, shape in
              {"a1": (16, 100), "a2": (16, 100), "b": (16, 10), "c": (16, 10)}.items()}  # fmt: skip
    members = {"a": ["a1", "a2"], "b": ["b"], "c": ["c"]}
    costs = {"a": Cost(2.0, 0.0), "b": Cost(1.0, 0.0), "c": Cost(0.05, 0.0)}
    mix = Mix(None, blocks, {}, members, SimpleNamespace(), costs)
    assert mix.ranked() == ["b", "a", "c"]
    assert replace(mix, costs=dict.fromkeys("cba", Cost(0.0, 0.0))).ranked() == ["a", "b", "c"]  # ties by name


@pytest.mark.parametrize(
    ("values", "content"),
    [([], b""), ([-8], b"\x08"), ([-8, 7], b"\x78"), ([-8, 7, -1], b"\x78\x0f"), ([[1, 2], [3, 4]], b"\x21\x43")],
)
def test_four_bits_are_packed_in_pairs_the_first_in_the_low_half(values, content):
    assert packed(np.array(values, np.int8)) == content


@pytest.mark.parametrize("rows", [64, 300])
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_of_weights_that_are_corrected(rows, bits):
    """Algorithm 1 of the paper, row by row: a block's scales are chosen when the errors of all rows before it are in it."""
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((2000, 8)) @ rng.standard_normal((8, rows)) + 0.1 * rng.standard_normal((2000, rows))).astype("f4")
    weight, upper = rng.standard_normal((rows, 6)).astype(np.float32), inverse_factor(x.T @ x)
    made, rest = round_with_feedback(weight, upper, bits, 32), weight.astype(np.float64)
    for k in range(rows):
        if k % 32 == 0:
            assert np.allclose(made.scales[k // 32], best_scales(rest[k : k + 32], bits), rtol=1e-5)
        error = rest[k] - made.values[k] * made.scales[k // 32].astype(np.float64)
        rest[k + 1 :] -= np.outer(upper[k, k + 1 :], error / upper[k, k])


def test_synthetic_rows_have_the_mean_and_deviation_of_the_norm():
    """Beta is the mean of a channel, gamma its deviation; the value projection behind it has their product."""
    rng = np.random.default_rng(1)
    gamma, beta = np.array([1, 2, 0.5, 8], np.float32), np.array([5, -3, 0, 100], np.float32)
    v = rng.standard_normal((4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["h"], "norm"),
        helper.make_node("MatMul", ["h", "v"], ["value"], "projection"),
    ]
    arrays = {"gamma": gamma, "beta": beta, "v": v}
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], initializers))
    rows = synthetic_rows(
        model, [Site("h", ("projection",), "norm"), Site("context", ("out",), "projection"), Site("z", ("y",), None)]
    )
    assert rows.keys() == {"h", "context"} and rows["h"].shape == (ROWS, 4) == (256, 4)
    assert np.allclose(rows["h"].mean(0), beta, atol=5 * gamma / np.sqrt(ROWS))
    assert np.allclose(rows["h"].std(0), gamma, rtol=0.25)
    assert np.allclose(rows["context"], rows["h"] @ v, rtol=1e-4, atol=1e-3)


# Configs

COMMON = {
    "encoder": {
        "subsampling": ("dw_striding", "striding", False),
        "subsampling_factor": (8, 4, False),
        "att_chunk_context_size": (None, [[10]], True),
        "untie_biases": (True, False, True),
        "reduction": (None, "pooling", True),
        "global_tokens": (0, 1, True),
    },
    "decoder": {"normalization_mode": (None, "layer", True), "blank_as_pad": (True, False, True)},
    "joint": {"num_extra_outputs": (0, 5, True)},
    "preprocessor": {
        "window": ("hann", "hamming", True),
        "log": (True, False, True),
        "frame_splicing": (1, 2, True),
        "mag_power": (2.0, 1.0, True),
        "mel_norm": ("slaney", None, True),
        "exact_pad": (False, True, True),
        "lowfreq": (0, 20, True),
        "highfreq": (None, 7600, True),
        "log_zero_guard_type": ("add", "clamp", True),
        "pad_value": (0, 1, True),
    },
}  # section -> key -> (what is exported, what is not, whether NeMo's value for a config without the key is the first)
STREAMING = {
    "encoder": {
        "att_context_style": ("chunked_limited", "regular", False),
        "conv_norm_type": ("layer_norm", "batch_norm", False),
        "conv_context_size": ("causal", [4, 4], False),
        "causal_downsampling": (True, False, False),
    },
    "preprocessor": {"normalize": ("NA", "per_feature", False)},
}
OFFLINE = {
    "encoder": {
        "att_context_style": ("regular", "chunked_limited", True),
        "conv_norm_type": ("batch_norm", "layer_norm", True),
        "conv_context_size": (None, "causal", True),
        "causal_downsampling": (False, True, True),
    },
    "preprocessor": {"normalize": ("per_feature", "NA", True)},
}
BUFFERED = {
    "encoder": OFFLINE["encoder"]
    | {
        "att_context_style": ("chunked_limited_with_rc", "chunked_limited", False),
        "att_chunk_context_size": ([[70], [1, 7], [0, 7]], [[10]], False),
    },
    "preprocessor": OFFLINE["preprocessor"],
}
KEYS = {
    name: {section: {**keys, **own.get(section, {})} for section, keys in COMMON.items()}
    for name, own in (
        ("streaming-rnnt", STREAMING),
        ("streaming-prompt-rnnt", STREAMING),
        ("offline-rnnt", OFFLINE),
        ("offline-tdt", OFFLINE),
        ("buffered-rnnt", BUFFERED),
        ("streaming-ctc", STREAMING),
        ("offline-ctc", OFFLINE),
    )
}
for ctc in ("streaming-ctc", "offline-ctc"):
    KEYS[ctc] = {section: KEYS[ctc][section] for section in ("encoder", "preprocessor")}
    KEYS[ctc]["decoder"] = {"add_blank": (True, False, True)}
KEYS["offline-tdt"]["joint"] = {"num_extra_outputs": (5, 0, False)}
RULES = [(kind, section, key) for kind, sections in KEYS.items() for section, keys in sections.items() for key in keys]
RULES.remove(("buffered-rnnt", "encoder", "att_context_style"))  # by which it is of that kind


def config_of(kind):
    """A config of which everything can be exported, with every key that is read."""
    sections = {section: {key: values[0] for key, values in keys.items()} for section, keys in KEYS[kind].items()}
    config = copy.deepcopy(sections)
    prompt = "WithPrompt" if "prompt" in kind else ""
    ctc = kind.endswith("-ctc")
    config["target"] = f"nemo.collections.asr.models.{'EncDecCTCModelBPE' if ctc else f'EncDecRNNTBPEModel{prompt}'}"
    contexts = [[70, 13], [70, 0]] if kind.startswith("streaming") else [-1, -1]
    config["encoder"] |= dict(att_context_size=contexts, n_layers=2, d_model=16, n_heads=2, conv_kernel_size=9)
    config["preprocessor"] |= dict(sample_rate=16000, features=80, n_fft=512, window_size=0.025, window_stride=0.01)
    if ctc:
        config["decoder"]["vocabulary"] = ["a", "b"]
        return config
    config["decoder"]["prednet"] = dict(pred_hidden=16, pred_rnn_layers=1)
    config["joint"] |= dict(jointnet=dict(joint_hidden=16, activation="relu"), vocabulary=["a", "b"])
    if prompt:
        config["model_defaults"] = dict(initialize_prompt_feature=True, num_prompts=4, prompt_dictionary={"en-US": 0, "auto": 3})
    if kind == "offline-tdt":
        config["decoding"] = {"durations": [0, 1, 2, 3, 4]}
    return config


@pytest.mark.parametrize("kind", KEYS)
def test_every_key_that_is_judged_has_a_rule_here(kind):
    config = config_of(kind)
    assert kind_of(config).name == kind and not unsupported(config) and not malformed(config)
    read = {section: set(settings) for section, settings in kind_of(config).sections.items()}
    read |= {} if kind.endswith("-ctc") else {"joint": {"num_extra_outputs"}}
    assert read == {section: set(keys) for section, keys in KEYS[kind].items()}
    assert {k.name for k in KINDS} == set(KEYS)


@pytest.mark.parametrize(("kind", "section", "key"), RULES)
def test_every_key_is_refused_alone(kind, section, key):
    _, wrong, absent = KEYS[kind][section][key]
    config = config_of(kind)
    config[section][key] = wrong
    (problem,) = unsupported(config)
    assert problem.startswith(f"{section}.{key} is ") and repr(wrong) in problem
    del config[section][key]
    assert [text.partition(" ")[0] for text in unsupported(config)] == ([] if absent else [f"{section}.{key}"])


def placed(config, key, value):
    *sections, name = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
    config[name] = value


# -1 stands for d_model.
MAY_BE_ZERO = {
    "preprocessor.preemph", "decoder.prednet.dropout", "joint.jointnet.dropout", "encoder.subsampling_conv_channels",
}  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_is_bounded_alone(key):
    """Both bounds are taken, what lies beyond is refused and named; so is what is no number."""
    bounds = NUMBERS[key]
    step = 1 if bounds.whole else 1e-6
    assert (bounds.low > 0) != (key in MAY_BE_ZERO)  # a size of 0 is none
    for value in (bounds.low, bounds.high):
        config = config_of("streaming-prompt-rnnt")
        placed(config, key, value)
        assert not [text for text in malformed(config) if text.startswith(f"{key} ")]
    for value in (bounds.low - step, bounds.high + step, "1", True, [1], float("nan")):
        config = config_of("streaming-prompt-rnnt")
        placed(config, key, value)
        assert [text for text in malformed(config) if text.startswith(f"{key} is ")], value
    config = config_of("streaming-prompt-rnnt")
    placed(config, key, None)
    assert number(config, key) == bounds.default
    assert bool(malformed(config)) == (bounds.default is None)


@pytest.mark.parametrize(
    ("greedy", "most"),
    [
        ({}, 1000),
        ({"max_symbols": 7}, 7),
        ({"max_symbols_per_step": 30}, 30),
        ({"max_symbols": 7, "max_symbols_per_step": 30}, 7),
    ],
)
def test_older_configs_state_the_most_symbols_under_another_name(greedy, most):
    config = config_of("offline-rnnt")
    config["decoding"] = {"greedy": greedy}
    assert number(in_one_form(config), "decoding.greedy.max_symbols") == most
    config["decoding"]["greedy"] = {name: 0 for name in greedy}  # no limit, as in NeMo
    assert number(in_one_form(config), "decoding.greedy.max_symbols") == 1000 and not malformed(in_one_form(config))


@pytest.mark.parametrize("most", [1, 7, 10, 30])
def test_onnx_asr_is_told_how_many_tokens_a_frame_may_have(most):
    spec = json.loads(json.dumps(samples.OFFLINE_SPEC))
    spec["decoding"]["max_symbols_per_frame"] = most
    spec["offline"]["subsampling_factor"], spec["frontend"]["n_mels"] = 4, 80
    made = onnx_asr.config_for({"spec": spec})
    assert (made["max_tokens_per_step"], made["features_size"], made["subsampling_factor"]) == (most, 80, 4)
    assert made["model_type"] == "nemo-conformer-rnnt"
    spec["kind"], spec["decoding"]["durations"] = "offline-tdt", [0, 1, 2]
    assert onnx_asr.config_for({"spec": spec})["model_type"] == "nemo-conformer-tdt"
