"""What gates compare, each thing alone, without a model: frames, specs, interfaces, weights, a process's figures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nemoport.caches import NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.errors import ArtifactError, OutputError, UsageError
from nemoport.export.config import cache_shapes
from nemoport.interface import F16, F32, I32, I64, Interface, Tensor
from nemoport.interface import differences as interface_differences
from nemoport.prompt import PromptSpec
from nemoport.quantize.graph import KEPT
from nemoport.speech.corpus import Corpus, Utterance
from nemoport.tokens import SpellingRule
from nemoport.validate import gates
from nemoport.validate.calibration_error import Bin, expected_calibration_error, judged_words, reliability
from nemoport.validate.gate_result import GateResult
from nemoport.validate.gates import batch, contract, cost, structure
from nemoport.validate.gates.numeric import differences
from nemoport.validate.probe import StreamCost
from nemoport.validate.runs import UtteranceRun
from nemoport.words import Word


def run_of(name, values, enc_frames=None):
    frames = np.array(values, np.float32).reshape(-1, 2)
    return UtteranceRun((), (), "", len(frames) if enc_frames is None else enc_frames, frames, name, 10)


def test_frames_are_compared_one_by_one():
    """The largest difference and where it is; the root of squared error over squared reference."""
    base = [run_of("a", [3, 4]), run_of("none", []), run_of("b", [0, 0, 0, 12]), run_of("c", [0, 0])]
    assert differences(base, base) == (0.0, 0.0, "")
    other = [run_of("a", [3, 4.5]), run_of("none", []), run_of("b", [0, -0.75, 0, 12]), run_of("c", [0.25, 0])]
    worst, ratio, where = differences(other, base)
    assert (worst, where) == (0.75, "largest in b")
    assert ratio == pytest.approx(np.sqrt((0.5**2 + 0.75**2 + 0.25**2) / 169))


@pytest.mark.parametrize("at", [0, 2])
def test_frames_that_cannot_be_compared_are_no_pass(at):
    base = [run_of("a", [3, 4]), run_of("b", []), run_of("c", [1, 1, 1, 1])]
    short = [replace(run, enc_frames=run.enc_frames + (i == at)) for i, run in enumerate(base)]
    found = f"{base[at].id}: {base[at].enc_frames + 1} encoder frames, NeMo has {base[at].enc_frames}"
    assert differences(short, base) == (np.inf, np.inf, found)
    broken = [replace(run, sampled_frames=run.sampled_frames * (np.nan if i == at else 1)) for i, run in enumerate(base)]
    worst, ratio, where = differences(broken, base)
    assert np.isnan([worst, ratio]).all() and where == f"largest in {base[at].id}"
    empty = [run_of("a", []), run_of("b", [])]
    assert np.isnan(differences(empty, empty)[:2]).all() and differences(empty, empty)[2] == "no encoder frame to compare"


def checked(checkpoint, *, config=None, spec=None, shared=None, manifest=None, tokens=3, **settings):
    """A context of an artifact whose files say what is given here, and of the checkpoint what it is."""
    spec = spec or checkpoint.spec
    streaming = checkpoint.spec.streaming
    shapes = {"cache_shapes": cache_shapes(streaming, NemoCaches), "kv_cache_shapes": cache_shapes(streaming, KvCaches)}
    listed = SimpleNamespace(variant="fp32", checkpoint_sha256="0" * 64, files={"encoder": 1, "decoder": 2})
    artifact = SimpleNamespace(
        spec=spec,
        shared=shared,
        manifest=replace_of(listed, manifest or {}),
        config=lambda: {"encoder": shapes} | (config or {}),
        verify_files=settings.get("verify", lambda: None),
        filterbank=settings.get("filterbank", lambda: None),
    )
    of_checkpoint = replace(checkpoint.spec, decoding=replace(checkpoint.spec.decoding, vocab_size=3))
    read = SimpleNamespace(sha256="0" * 64, spelling=SpellingRule())
    context = SimpleNamespace(artifact=artifact, spec=of_checkpoint, variant="fp32", checkpoint=read)
    return replace_of(context, settings.get("context", {}))


def replace_of(namespace, changes):
    return SimpleNamespace(**{**vars(namespace), **changes})


@pytest.mark.parametrize(
    ("manifest", "count", "found"),
    [
        ({}, 3, []),
        ({"variant": "fp16"}, 3, ["manifest.json's variant: expected fp32, found fp16"]),
        ({"checkpoint_sha256": "1"}, 3, [f"manifest.json's checkpoint: expected {'0' * 64}, found 1"]),
        ({}, 2, ["tokens in tokens.txt: expected 3, found 2"]),
        ({}, 4, ["tokens in tokens.txt: expected 3, found 4"]),
    ],
)
def test_files_are_those_of_the_checkpoint(reference_checkpoint, tmp_path, manifest, count, found):
    (tmp_path / "tokens.txt").write_text("".join(f"t{i} {i}\n" for i in range(count)))
    checks = list(contract._files(checked(reference_checkpoint, shared=tmp_path, manifest=manifest)))
    assert len(checks) == 6 and [check for check in checks if check] == found


@pytest.mark.parametrize("broken", ["verify", "filterbank"])
def test_damaged_files_end_the_check(reference_checkpoint, tmp_path, broken):
    def fail():
        raise ArtifactError("damaged", expected="", found="", todo="")

    (tmp_path / "tokens.txt").write_text("a 0\n")
    with pytest.raises(ArtifactError, match="damaged"):
        list(contract._files(checked(reference_checkpoint, shared=tmp_path, **{broken: fail})))


def test_specs_are_compared_field_by_field(reference_checkpoint):
    spec = replace(reference_checkpoint.spec, decoding=replace(reference_checkpoint.spec.decoding, vocab_size=3))
    same = list(contract._specs(checked(reference_checkpoint, spec=spec)))
    assert set(same) == {""} and len(same) > 20
    for part in ("frontend", "streaming", "decoding"):
        for name, value in spec.to_dict()[part].items():
            other = "per_feature" if name == "normalize" else value + [0] if isinstance(value, list) else value + 1
            changed = replace(spec, **{part: replace(getattr(spec, part), **{name: other})})
            found = [text for text in contract._specs(checked(reference_checkpoint, spec=changed)) if text]
            assert found == [f"config.json's {part}.{name}: expected {value}, found {other}"]
    (found,) = [t for t in contract._specs(checked(reference_checkpoint, spec=replace(spec, kind="streaming-tdt"))) if t]
    assert found == f"config.json's kind: expected {spec.kind}, found streaming-tdt"
    without = SimpleNamespace(to_dict=lambda: {"kind": spec.kind})
    assert len([t for t in contract._specs(checked(reference_checkpoint, spec=without)) if t]) == len(same) - 3


@pytest.mark.parametrize("key", ["cache_shapes", "kv_cache_shapes"])
@pytest.mark.parametrize("value", [None, {}])
def test_cache_shapes_are_compared(reference_checkpoint, key, value):
    spec = replace(reference_checkpoint.spec, decoding=replace(reference_checkpoint.spec.decoding, vocab_size=3))
    context = checked(reference_checkpoint, spec=spec)
    shapes = context.artifact.config()["encoder"]
    context.artifact.config = lambda: {"encoder": {**shapes, key: value}}
    (found,) = [text for text in contract._specs(context) if text]
    assert found.startswith(f"config.json's {key}: expected {{") and found.endswith(f"found {value}")
    del shapes[key]
    context.artifact.config = lambda: {"encoder": shapes}
    assert [t[: len(found) - 10] for t in contract._specs(context) if t] == [found[: len(found) - 10]]


def test_languages_are_those_of_the_checkpoint(reference_checkpoint, tmp_path):
    context = checked(reference_checkpoint, shared=tmp_path)
    assert list(contract._languages(context)) == []  # a model without a prompt
    context.spec = replace(context.spec, prompt=PromptSpec(4, {"de": 1, "en": 2}))
    both = "shared/languages.json: expected {'de': 1, 'en': 2}, found no file"
    listed = "config.json's prompt.languages: expected {'de': 1, 'en': 2}, found None"
    assert list(contract._languages(context)) == [both, listed]
    (tmp_path / "languages.json").write_text('{"de": 1, "en": 2}')
    assert list(contract._languages(context)) == ["", listed]
    context.artifact.config = lambda: {"prompt": {"languages": {"de": 1, "en": 2}}}
    assert list(contract._languages(context)) == ["", ""]
    (tmp_path / "languages.json").write_text('{"de": 1, "en": 3}')
    context.artifact.config = lambda: {"prompt": {"languages": {"de": 1}}}
    wrong = list(contract._languages(context))
    assert [text.rpartition(", found ")[2] for text in wrong] == ["{'de': 1, 'en': 3}", "{'de': 1}"]


def test_interfaces_are_compared_name_by_name(monkeypatch):
    def graph(**inputs):
        return Interface({name: Tensor("float32", shape) for name, shape in inputs.items()}, {})

    expected = {"encoder": graph(x=(1, None), y=(2,)), "decoder": graph(x=(1,))}
    found = {"encoder": graph(x=(1, 3), z=(2,)), "other": graph(), "b": graph()}
    runtime = SimpleNamespace(optional=frozenset(), problems=lambda artifact, spec: iter([f"{artifact} {spec}", ""]))
    runtime.expected = lambda artifact, spec: {("artifact", "spec"): expected}[artifact, spec]
    runtime.found = lambda artifact: {"artifact": found}[artifact]
    monkeypatch.setattr(contract, "load_runtime", lambda name: {"mine": runtime}[name])
    context = SimpleNamespace(artifact="artifact", spec="spec", limits=SimpleNamespace(target="mine"))
    assert list(contract._interfaces(context)) == [
        "unknown graph b",
        "unknown graph other",
        "encoder: unknown input z",
        "encoder: input x: expected float32 [1, ?], found float32 [1, 3]",
        "encoder: input y is absent",
        "decoder is absent",
        "artifact spec",
        "",
    ]
    runtime.optional = frozenset({"y"})
    assert "encoder: input y is absent" not in list(contract._interfaces(context))


def test_a_tensor_and_its_sizes():
    tensor = Tensor("float32", (None, 3, None))
    assert str(tensor) == "float32 [?, 3, ?]" and tensor.of(1, 2) == (1, 3, 2)
    assert (str(Tensor("int64", ())), Tensor("int64", (4,)).of(7)) == ("int64 []", (4,))
    assert [np.dtype(kind).name for kind in (np.float32, np.float16, np.int32, np.int64)] == [F32, F16, I32, I64]


def test_each_side_of_an_interface_is_compared():
    one, other = Tensor("float32", (1,)), Tensor("float16", (1,))
    expected = Interface({"a": one, "b": one}, {"c": one}, {"d": one, "e": one})
    assert list(interface_differences("g", expected, expected)) == [""] * 5
    found = Interface({"a": other, "z": one, "y": one}, {}, {"e": one, "f": one})
    assert list(interface_differences("g", expected, found, ["b", "c"])) == [
        "g: unknown input y",
        "g: unknown input z",
        "g: input a: expected float32 [1], found float16 [1]",
        "g: unknown state f",
        "g: state d is absent",
        "",
    ]
    assert list(interface_differences("g", expected, replace(expected, outputs={}))) == ["", "", "g: output c is absent", "", ""]


def initializers_of(constants):
    return [numpy_helper.from_array(value, name) for name, value in constants.items()]


def model_of(nodes, constants):
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4]),
            helper.make_tensor_value_info("u", TensorProto.UINT8, [3, 4]),
        ],
        [helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None) for node in nodes if node.name],
        initializers_of(constants),
    )
    for output in graph.output:
        output.type.tensor_type.elem_type = TensorProto.INT32 if output.name.startswith("i") else TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_products_of_weights_are_found_in_floats_and_in_integers(tmp_path):
    """What is no product of a weight, and what is meant to stay in floats, does not count."""
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal((4, 4)).astype(np.float32) for name in ("w", "w2", "w3")}
    constants |= {"positions": rng.standard_normal((2, 4, 4)).astype(np.float32), "q": np.ones((4, 5), np.int8)}
    constants["bias"] = np.ones(4, np.float32)
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "left in floats"),
        node("Gemm", ["x", "w2", "bias"], ["b"], "left, too"),
        node("MatMul", ["x", "w3"], ["c"], f"{KEPT[0] if isinstance(KEPT, tuple) else KEPT}kept"),
        node("Transpose", ["x"], ["t"], ""),
        node("MatMul", ["x", "t"], ["d"], "of activations"),
        node("MatMul", ["x", "positions"], ["e"], "positions"),
        node("MatMulInteger", ["u", "q"], ["i"], "in integers"),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, constants), path)
    floats, integers = structure.products(path, "cpu")
    assert (sorted(floats), integers) == (["left in floats", "left, too"], ["in integers"])


def test_products_have_the_names_that_runtimes_fuse_them_to(monkeypatch):
    """A weight counts as the left or the right of a product, or behind a dequantizer; not as what is added to it, and activations
    do not. Weights in a file beside the graph are not read."""
    floats = ("MatMul", "FusedMatMul", "Gemm")
    integers = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "MatMulNBits")
    weighted, others = (["x", "right"], ["left", "x"], ["x", "dequantized"]), (["x", "y", "added"], ["x", "activations"])

    def optimise(encoder, provider, optimised):
        assert (encoder, provider) == ("encoder", "cuda")
        weights = {name: np.ones((4, 4), np.float32) for name in ("left", "right", "added", "quantized")}
        pairs = {"quantized": "dequantized", "x": "activations"}
        nodes = [helper.make_node("DequantizeLinear", [before, "scale"], [behind], "d") for before, behind in pairs.items()]
        for kind in (*floats, *integers, "Add", "QLinearConv"):
            nodes += [helper.make_node(kind, inputs, ["z"], f"{kind} {inputs}") for inputs in (*weighted, *others)]
        made = helper.make_model(helper.make_graph(nodes, "g", [], [], initializers_of(weights)))
        onnx.save(made, optimised, save_as_external_data=True, location="gone", size_threshold=0)
        (optimised.parent / "gone").unlink()

    monkeypatch.setattr(structure, "open_graph", optimise)
    found = structure.products("encoder", "cuda")
    assert found[0] == [f"{kind} {inputs}" for kind in floats for inputs in weighted]
    assert found[1] == [f"{kind} {inputs}" for kind in integers for inputs in (*weighted, *others)]


def pairs_of(tmp_path, weight, *, activation=np.uint8, other=np.uint8):
    """Overflowing pairs of a weight [in, out] in both forms of a product: integers, and floats between dequantizers."""
    weight = np.array(weight, np.int8)
    node, one = helper.make_node, np.ones((), np.float32)
    constants = {"w": weight, "v": weight, "s": one, "z": np.zeros((), activation), "zw": np.zeros((), np.int8)}
    constants |= {"float": one * np.ones((4, 1), np.float32), "wide": np.full((4, 1), 100, np.uint8)}
    nodes = [
        node("MatMulInteger", ["u", "w"], ["i"], "a"),
        node("QuantizeLinear", ["x", "s", "z"], ["xq"], ""),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"], ""),
        node("DequantizeLinear", ["v", "s", "zw"], ["vd"], ""),
        node("MatMul", ["xd", "vd"], ["f"], "b"),
        node("MatMul", ["x", "float"], ["g"], "c"),
        node("MatMulInteger", ["u", "wide"], ["i2"], "d"),
    ]
    onnx.save(model_of(nodes, constants), tmp_path / "model.onnx")
    return structure.overflowing_pairs(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("weight", "u8", "s8"),
    [
        ([[64], [64]], 0, 0),  # 128 * 255 = 32640
        ([[65], [64]], 1, 0),  # 129 * 255 = 32895
        ([[-64], [-64]], 0, 0),  # -32640
        ([[-65], [-64]], 1, 0),
        ([[127], [-128]], 0, 0),  # their signs differ
        ([[127], [2]], 1, 0),
        ([[127], [1]], 0, 0),
        ([[-128], [-128]], 1, 1),  # by -128: 32768
        ([[-128], [-127]], 1, 0),
        ([[127], [127]], 1, 0),  # 32258
        ([[1], [127], [127], [1], [127]], 0, 0),  # neighbours of two pairs, and one without a pair
        ([[0], [0], [127], [2]], 1, 0),
        ([[127, 0, 90], [127, 90, 90], [0, 127, 127], [1, 1, 127]], 3, 0),
    ],
)
def test_pairs_that_16_bits_do_not_hold(tmp_path, weight, u8, s8):
    found = {"w": u8, "v": u8}
    assert pairs_of(tmp_path, weight) == {name: count for name, count in found.items() if count}
    found["v"] = s8
    assert pairs_of(tmp_path, weight, activation=np.int8) == {name: count for name, count in found.items() if count}


def corpus_of(*seconds):
    return Corpus(Path(), tuple(Utterance(f"{i}", Path(f"{i}.wav"), "", one, f"{i}", 16000) for i, one in enumerate(seconds)))


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [((59.9, 1.0, 5.0), 2), ((60.0, 1.0), 1), ((61.0, 1.0), 1), ((20.0, 20.0, 19.9, 1.0, 9.0), 4), ((1.0,), 1)],
)
def test_cost_is_of_a_minute_in_a_process_of_its_own(monkeypatch, seconds, chosen):
    called = []

    def process(command, **options):
        called.append((command, options))
        return SimpleNamespace(returncode=0, stdout="warning\nanother\n" + json.dumps(vars(FIGURES)) + "\n", stderr="")

    monkeypatch.setattr(cost.subprocess, "run", process)
    context = SimpleNamespace(
        corpus=corpus_of(*seconds), folder=Path("build/fp16"), provider="cuda", threads=3, prompt_language="de", variant="fp16"
    )
    assert cost.measure(context) == FIGURES
    ((command, options),) = called
    assert command[1:7] == ["-m", "nemoport.validate.probe", "build/fp16", "cuda", "3", "de"]
    of_row = [str(one) for one in (context.corpus.utterances[0].offset_s, context.corpus.utterances[0].duration_s)]
    assert command[7:] == [text for i in range(chosen) for text in (f"{i}.wav", *of_row)]
    assert options == {"timeout": 1800, "capture_output": True, "text": True, "check": False}


FIGURES = StreamCost(6, 4, 60.0, 2.0, 5, 10**8)


def test_a_process_that_fails_is_no_cost(monkeypatch):
    done = SimpleNamespace(returncode=-9, stdout=json.dumps(vars(FIGURES)), stderr="x" * 600 + " the end \n")
    monkeypatch.setattr(cost.subprocess, "run", lambda command, **options: done)
    context = SimpleNamespace(
        corpus=corpus_of(1.0), folder=Path("f"), provider="cpu", threads=0, prompt_language="", variant="fp16"
    )
    with pytest.raises(ArtifactError, match="fp16 does not run(?s:.*)-9: x+ the end\n"):
        cost.measure(context)


class Plain:
    """A context that stamps results with what it was asked for."""

    variant, sha256 = "fp16", "1" * 64

    def stamp(self, result):
        return replace(result, judge_digest="2" * 64)


def test_whatever_a_gate_does_it_ends_in_stamped_results(monkeypatch):
    passed = GateResult("batch", "fp16", "1" * 64, "pass")
    for returned, expected in [
        ([passed, passed], [passed, passed]),
        ([], [GateResult("batch", "fp16", "1" * 64, "fail", evidence="the gate judged nothing")]),
        (None, [GateResult("batch", "fp16", "1" * 64, "fail", evidence="the gate judged nothing")]),
    ]:
        given = []
        monkeypatch.setattr(batch, "run", lambda context, returned=returned, given=given: given.append(context) or returned)
        context = Plain()
        found = gates.run_gate("batch", context)
        assert given == [context]
        assert found == [replace(one, judge_digest="2" * 64) for one in expected]
    for error in (ValueError("two\n lines"), KeyError("a"), AssertionError(), MemoryError("much")):
        monkeypatch.setattr(batch, "run", lambda context, error=error: (_ for _ in ()).throw(error))
        (found,) = gates.run_gate("batch", Plain())
        assert (found.gate, found.variant, found.sha256, found.status) == ("batch", "fp16", "1" * 64, "fail")
        assert found.evidence == " ".join(f"{type(error).__name__}: {error}".split())
        assert (found.measured, found.judge_digest) == (None, "2" * 64)


def test_a_gate_on_no_artifact_fails_without_its_digest(monkeypatch):
    class Missing(Plain):
        @property
        def sha256(self):
            raise ArtifactError("no manifest", expected="", found="", todo="")

    monkeypatch.setattr(batch, "run", lambda context: [])
    (found,) = gates.run_gate("batch", Missing())
    assert (found.status, found.sha256, found.evidence) == ("fail", "", "the gate judged nothing")


def test_a_full_disk_and_an_unknown_gate_are_no_verdict(monkeypatch):
    def full(context):
        raise OutputError("full", expected="", found="", todo="")

    monkeypatch.setattr(batch, "run", full)
    with pytest.raises(OutputError, match="full"):
        gates.run_gate("batch", Plain())
    with pytest.raises(UsageError, match="no gate 'taste'(?s:.*)one of batch, boundary, conditions, contract, cost"):
        gates.run_gate("taste", Plain())
    assert gates.names() == sorted(path.stem for path in Path(gates.__file__).parent.glob("[!_]*.py"))


def test_bins_of_confidence():
    """A tenth each, 1.0 in the last; the error is weighted by their words."""
    judged = [(0.05, False), (0.1, True), (0.19, False), (0.95, True), (1.0, True)]
    assert reliability(judged) == [
        Bin(0.0, 0.05, 0.0, 1),
        Bin(0.1, pytest.approx(0.145), 0.5, 2),
        Bin(0.9, pytest.approx(0.975), 1.0, 2),
    ]
    assert expected_calibration_error(judged) == pytest.approx((0.05 + 2 * 0.355 + 2 * 0.025) / 5)
    assert reliability([]) == [] and np.isnan(expected_calibration_error([]))


def test_a_word_is_right_where_the_transcript_has_it():
    def judged(reference, *texts, language=""):
        words = [Word(text, 0.0, 0.1, round(0.1 * i, 1)) for i, text in enumerate(texts, 1)]
        return judged_words(words, reference, language)

    assert judged("a b c d", "a", "x", "c", "c") == [(0.1, True), (0.2, False), (0.3, True), (0.4, False)]
    assert judged("a b", "A,", "...", "b-b") == [(0.1, True), (0.3, True), (0.3, False)]  # no unit of marks alone
    assert judged("", "a") == [(0.1, False)] and judged("a") == [] and judged("a", "...") == []
    assert judged("ab", "ab", "b") == [(0.1, True), (0.2, False)]
    assert judged("ab", "ab", "b", language="ja") == [(0.1, True), (0.1, True), (0.2, False)]
