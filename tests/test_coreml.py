"""Core ML: packages whose interface is what it must be, and the programs they were made from, run against NeMo."""

import damage
import numpy as np
import pytest
import torch
from contract import runtime_problems

from nemoport.apple.graphs import CONFORMER, JOINT
from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.apple.modules import graph_modules
from nemoport.export.apple.rounding import round_weights
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.targets import export_target
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS

coremltools = pytest.importorskip("coremltools")
coreml = pytest.importorskip("nemoport.export.targets.coreml")
pytestmark = pytest.mark.usefixtures("cost_in_process")
QUICK = ("contract", "numeric", "tokens", "wer", "boundary", "batch")


def export(checkpoint, build, precision):
    return export_target(checkpoint, build, "coreml", precision, None, progress=lambda line: None)


@pytest.fixture(scope="module")
def coreml_build(build, reference_checkpoint, tmp_path_factory):
    folder = damage.copy_build(build, tmp_path_factory.mktemp("coreml") / "build")
    export(reference_checkpoint, folder, "fp32")
    return folder


@pytest.fixture
def copy(coreml_build, tmp_path):
    return damage.copy_build(coreml_build, tmp_path / "build")


@pytest.fixture(scope="module")
def context_of(reference_checkpoint, eval_corpus, oracle):
    def make(build, variant="coreml-fp32"):
        return Context(build / variant, limits.limits_of(variant), reference_checkpoint, eval_corpus, oracle, threads=1)

    return make


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def edit_program(build, variant, graph, edit):
    """Changes the weights of one program; `edit` gets its state_dict."""
    path = build / variant / f"{coreml.package_name(graph)}{coreml.PROGRAM_SUFFIX}"
    program = torch.export.load(path)
    edit(program.state_dict)
    torch.export.save(program, path)
    damage.seal(build / variant)


def test_the_programs_pass_their_gates(coreml_build, context_of):
    assert failing(context_of(coreml_build), *QUICK, "cost") == []


def test_another_lookahead_and_device_are_refused(coreml_build):
    with pytest.raises(UsageError, match="fixed shapes, for one lookahead"):
        Recognizer.open(coreml_build / "coreml-fp32", 0)
    with pytest.raises(UsageError, match="no provider 'coreml'"):
        open_session(Artifact.open(coreml_build / "coreml-fp32"), "coreml")


def test_swapped_weights_are_rejected(copy, context_of):
    def swap(weights):
        first, last = (f"layers.{i}.self_attn.linear_q.weight" for i in (0, 5))
        weights[first].data, weights[last].data = weights[last].data, weights[first].data

    edit_program(copy, "coreml-fp32", CONFORMER, swap)
    assert {"numeric", "tokens"} <= set(failing(context_of(copy), "numeric", "tokens", "wer"))


def test_only_blank_is_rejected(copy, context_of, reference_checkpoint):
    def blank(weights):
        weights["head.bias"].data[reference_checkpoint.spec.decoding.blank_id] = 1e4

    edit_program(copy, "coreml-fp32", JOINT, blank)
    assert failing(context_of(copy), *QUICK, "cost") == ["tokens", "wer", "boundary", "cost"]


def test_weights_in_8_bits_pass_the_limits_of_int8(copy, context_of, reference_checkpoint):
    """Of the program alone: converting the package in int8, which takes long, changes nothing of it."""
    module = graph_modules(reference_checkpoint, 6, 1, torch.float32)[0][CONFORMER]
    round_weights(module, 8, 0, coreml.LEAST_WEIGHTS)
    rounded = {name: weight.detach() for name, weight in module.named_parameters()}
    changed = []

    def put(weights):
        changed.extend(name for name in rounded if not torch.equal(weights[name].data, rounded[name]))
        for name in changed:
            weights[name].data = rounded[name]

    edit_program(copy, "coreml-fp32", CONFORMER, put)
    context = context_of(copy)
    context.limits = limits.limits_of("coreml-int8")
    assert len(changed) > 6 * 8 and failing(context, "numeric", "tokens", "wer") == []


def test_scales_in_a_wrong_order_are_rejected_even_by_int8_limits(copy, context_of):
    def shuffle(weights):
        for name, weight in weights.items():
            if "linear" in name and name.endswith(".weight"):
                weight.data = torch.from_numpy(damage.shuffle_scales(weight.numpy())).float()

    edit_program(copy, "coreml-fp32", CONFORMER, shuffle)
    context = context_of(copy)
    context.limits = limits.limits_of("coreml-int8")
    assert "numeric" in failing(context, "numeric", "tokens", "wer")


def test_a_package_of_another_interface_is_rejected(copy, context_of):
    folder = copy / "coreml-fp32"
    damage.shutil.rmtree(folder / "Joint.mlpackage")
    damage.shutil.copytree(folder / "Decoder.mlpackage", folder / "Joint.mlpackage")
    damage.seal(folder)
    (found,) = gates.run_gate("contract", context_of(copy))
    assert found.status == FAIL
    assert "Joint.mlpackage: input enc_frame is absent" in found.evidence


def test_compressed_weights_are_those_of_the_program(random_checkpoint, tmp_path):
    """Read out of the package, as Core ML would: the program's, but for scales in fp16. The package is smaller for it."""
    import coremltools.optimize.coreml as optimize

    checkpoint, folder = read_checkpoint(str(random_checkpoint("tiny"))), tmp_path / "coreml-int8"
    assert [problem for problem in runtime_problems(export(checkpoint, tmp_path, "int8"), checkpoint.spec) if problem] == []
    model = coremltools.models.MLModel(str(folder / "Encoder.mlpackage"), skip_model_load=True)
    stored = optimize.get_weights_metadata(optimize.decompress_weights(model), weight_threshold=coreml.LEAST_WEIGHTS)
    weights = torch.export.load(folder / "Encoder.pt2").state_dict
    wanted = [w.numpy().T for name, w in weights.items() if name.endswith("linear1.weight")]
    found = [w.val.astype(np.float32) for w in stored.values() if w.val.shape == wanted[0].shape]
    for one in wanted:
        nearest = min(np.abs(one - other).max() for other in found)
        assert nearest < 2e-3 * np.abs(one).max()  # a step of 8 bits is four times that
    assert len(wanted) == len(found)
    size = sum(one.nbytes for one in weights.values() if one.ndim == 2)
    (packed,) = (folder / "Encoder.mlpackage").rglob("weight.bin")
    assert packed.stat().st_size < 0.35 * size  # in 16 bits more than half; the rest are its biases and scales


def test_rounding_twice_is_rounding_once(reference_checkpoint):
    for bits, block in ((8, 0), (4, 16)):
        module = graph_modules(reference_checkpoint, 6, 1, torch.float32)[0][CONFORMER]
        before = module.layers[0].feed_forward1.linear1.weight.clone()
        round_weights(module, bits, block, 2048)
        once = module.layers[0].feed_forward1.linear1.weight.clone()
        round_weights(module, bits, block, 2048)
        twice = module.layers[0].feed_forward1.linear1.weight
        assert not torch.equal(before, once)
        assert torch.allclose(once, twice, rtol=1e-5, atol=0)
        levels = {len(torch.unique((once[: block or None, i] / once[: block or None, i].abs().max()).round(decimals=4)))
                  for i in range(8)}  # fmt: skip
        assert max(levels) <= 2**bits - 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_other_precisions_pass_their_gates(reference_checkpoint, build, context_of, tmp_path, precision):
    folder = damage.copy_build(build, tmp_path / "build")
    for one in ("fp32", precision):
        export(reference_checkpoint, folder, one)
    assert failing(context_of(folder, f"coreml-{precision}"), *QUICK, "cost") == []


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["longform", "conditions"])
def test_long_recordings_and_conditions(coreml_build, copy, context_of, reference_checkpoint, gate):
    def blank(weights):
        weights["head.bias"].data[reference_checkpoint.spec.decoding.blank_id] = 1e4

    edit_program(copy, "coreml-fp32", JOINT, blank)
    for build, expected in ((coreml_build, []), (copy, [gate])):
        context = context_of(build)
        context.limits = context.limits.override("longform", minutes=1)
        assert failing(context, gate) == expected


def test_contract_is_judged(coreml_build, context_of):
    (result,) = gates.run_gate("contract", context_of(coreml_build))
    assert (result.status, result.measured) == (PASS, 0) and result.n > 60
