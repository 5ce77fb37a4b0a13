"""The structure gate sees a product that is left in floats, whoever left it, and one that overflows on another processor."""

import damage
import onnxruntime
import pytest
from quantizing import quiet, short_manifest

from nemoport.artifact import ENCODER, Artifact
from nemoport.quantize import build_variant
from nemoport.quantize.blocks import round_nearest, write_stored
from nemoport.quantize.graph import Weights, layer_matmuls, load_typed
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gates import structure

pytestmark = pytest.mark.usefixtures("fewer_streams")


@pytest.fixture(scope="module")
def copy(build, tmp_path_factory):
    copy = damage.copy_build(build, tmp_path_factory.mktemp("structure") / "build")
    manifest = short_manifest(tmp_path_factory.mktemp("calibration"))
    for variant in ("int8-weight", "int8-static"):
        build_variant(copy, variant, manifest, progress=quiet)
    return copy


@pytest.fixture
def context_of(reference_checkpoint, eval_corpus, oracle):
    def context(build, variant):
        held_to = limits.limits_of(variant.removesuffix("-full-range"))
        return Context(build / variant, held_to, reference_checkpoint, eval_corpus, oracle, threads=1)

    return context


@pytest.mark.parametrize("variant", ["int8-weight", "int8-static"])
def test_every_product_of_a_layer_is_an_integer_one(copy, context_of, variant):
    results = gates.run_gate("structure", context_of(copy, variant))
    assert [(r.measured, r.passed) for r in results] == [(0, True), (10, True), (0, True)]


def test_fp32_would_not_pass(copy):
    floats, integers = structure.products(copy / "fp32" / ENCODER, "cpu")
    assert len(floats) == 60 and not integers


def test_a_product_that_the_quantizer_left_is_found(copy, context_of, tmp_path):
    build = damage.copy_build(copy, tmp_path / "build")
    parent = Artifact.open(build / "fp32")
    model = load_typed(parent.encoder)
    weights, names = Weights(model), [node.name for node in layer_matmuls(model)]
    write_stored(model, {name: (round_nearest(weights.of(name), 8, 128), 8) for name in names[1:]}, parent, build / "int8-weight")
    damage.seal(build / "int8-weight")
    floats, integers, _ = gates.run_gate("structure", context_of(build, "int8-weight"))
    assert not floats.passed and floats.evidence == names[0] and not integers.passed


def test_a_pattern_that_the_runtime_does_not_fuse_is_found(copy, context_of, monkeypatch):
    """onnxruntime 1.31 fuses no 8-bit weights when it is told to take u8 ones."""

    def unfused(path, provider, optimised):
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(structure, "open_graph", unfused)
    floats, integers, _ = gates.run_gate("structure", context_of(copy, "int8-weight"))
    assert floats.measured == 10 and not floats.passed and not integers.passed


@pytest.mark.parametrize("variant", ["int8-dynamic", "int8-static"])
def test_weights_that_overflow_where_there_is_no_vnni_are_found(copy, context_of, variant):
    build_variant(copy, f"{variant}-full-range", short_manifest(copy), progress=quiet)
    floats, integers, overflowing = gates.run_gate("structure", context_of(copy, f"{variant}-full-range"))
    assert floats.passed and integers.passed and not overflowing.passed
    assert overflowing.measured > 1000 and "weight_quantized" in overflowing.evidence
