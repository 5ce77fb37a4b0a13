"""The structure gate sees a product that is left in floats, whoever left it: the quantizer or the runtime."""

from dataclasses import replace

import damage
import pytest
from quantizing import quiet, short_manifest

from nemoport.artifact import ENCODER, Artifact
from nemoport.quantize import build_variant
from nemoport.quantize.blocks import round_nearest, write_stored
from nemoport.quantize.graph import Weights, layer_matmuls, load_typed
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gates import structure
from nemoport.validate.sessions import onnxruntime as session


@pytest.fixture(scope="module")
def copy(build, tmp_path_factory):
    copy = damage.copy_build(build, tmp_path_factory.mktemp("structure") / "build")
    manifest = short_manifest(tmp_path_factory.mktemp("calibration"))
    for variant in ("int8-weight", "int8-static"):
        build_variant(copy, variant, manifest, progress=quiet)
    return copy


@pytest.fixture
def context_of(reference_checkpoint, eval_corpus, oracle):
    return lambda build, variant: Context(
        build / variant, limits.limits_of(variant), reference_checkpoint, eval_corpus, oracle, threads=1
    )


@pytest.mark.parametrize("variant", ["int8-weight", "int8-static"])
def test_every_product_of_a_layer_is_an_integer_one(copy, context_of, variant):
    results = gates.run_gate("structure", context_of(copy, variant))
    assert [(r.measured, r.passed) for r in results] == [(0, True), (10, True)]


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
    floats, integers = gates.run_gate("structure", context_of(build, "int8-weight"))
    assert not floats.passed and floats.evidence == names[0] and not integers.passed


def test_a_pattern_that_the_runtime_does_not_fuse_is_found(copy, context_of, monkeypatch):
    """onnxruntime 1.31 fuses no 8-bit weights when it is told to take u8 ones."""
    unfused = lambda *args, **kwargs: session.open_graph(*args, **kwargs, u8_weights=True)  # noqa: E731
    monkeypatch.setattr(structure, "open_graph", unfused)
    floats, integers = gates.run_gate("structure", context_of(copy, "int8-weight"))
    assert floats.measured == 10 and not floats.passed and not integers.passed


def test_u8_weights_are_for_what_saturates(copy):
    static, weight = (Artifact.open(copy / variant) for variant in ("int8-static", "int8-weight"))
    assert session.saturates(static, "x86_64 avx2") and session.saturates(static, "AMD64")
    assert not session.saturates(static, "x86_64 avx2 avx512_vnni") and not session.saturates(static, "aarch64 asimddp")
    assert not session.saturates(weight, "x86_64 avx2")
    recipe = replace(static.manifest.recipe, parameters={**static.manifest.recipe.parameters, "reduce_range": True})
    assert not session.saturates(replace(static, manifest=replace(static.manifest, recipe=recipe)), "x86_64 avx2")
