"""Core AI: the .aimodel files in the package's own runtime against NeMo, and what the gates say of damaged ones."""

import json
from dataclasses import replace

import damage
import pytest
import torch
from contract import runtime_problems

from nemoport.apple.graphs import graph_interfaces
from nemoport.apple.session import AppleSession, AppleState
from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.apple.modules import graph_modules
from nemoport.export.apple.trace import AppleParameters, trace_one
from nemoport.export.profile import profiled
from nemoport.export.targets import export_target
from nemoport.package.layout import CardFacts
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS

pytest.importorskip("coreai_torch")
coreai = pytest.importorskip("nemoport.export.targets.coreai")
pytestmark = pytest.mark.usefixtures("cost_in_process")
VARIANT = "coreai-fp32"
QUICK = ("contract", "numeric", "tokens", "wer", "boundary")


def export(checkpoint, build, precision="fp32"):
    return export_target(checkpoint, build, "coreai", precision, None, progress=lambda line: None)


@pytest.fixture(scope="module")
def coreai_build(build, reference_checkpoint, tmp_path_factory):
    folder = damage.copy_build(build, tmp_path_factory.mktemp("coreai") / "build")
    export(reference_checkpoint, folder)
    return folder


@pytest.fixture
def copy(coreai_build, tmp_path):
    return damage.copy_build(coreai_build, tmp_path / "build")


@pytest.fixture(scope="module")
def context_of(reference_checkpoint, eval_corpus, oracle):
    def make(build, variant=VARIANT, checkpoint=reference_checkpoint):
        return Context(build / variant, limits.limits_of(variant), checkpoint, eval_corpus, oracle, threads=1)

    return make


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def replace_graph(build, checkpoint, graph, edit, lookahead=6):
    """Writes one asset anew, of a module that `edit` has changed."""
    modules, channels = graph_modules(checkpoint, lookahead, coreai.HALVES, torch.float32)
    edit(modules[graph])
    types = graph_interfaces(checkpoint.spec, lookahead, channels, coreai.HALVES, "float32")
    coreai.save(trace_one(modules[graph], types[graph]), build / VARIANT / f"{graph}{coreai.SUFFIX}")
    damage.seal(build / VARIANT)


def test_the_assets_pass_their_gates(coreai_build, context_of):
    context = context_of(coreai_build)
    assert failing(context, *QUICK, "batch") == []
    cases = {r.case for r in gates.run_gate("tokens", context)}
    assert cases == {"lookahead 6, full", "lookahead 6, nemo", "all", "different", "more or fewer"}
    assert [r.status for r in gates.run_gate("contract", context)] == [PASS]


def test_every_file_of_an_asset_is_listed(coreai_build):
    artifact = Artifact.open(coreai_build / VARIANT)
    listed = {entry.path for entry in artifact.manifest.files.values()}
    there = {p.relative_to(artifact.folder).as_posix() for p in artifact.folder.rglob("*") if p.is_file()}
    assert there - listed == {"manifest.json"}
    assert listed >= {f"joint.aimodel/{name}" for name in ("main.mlirb", "main.hash", "metadata.json")}
    assert artifact.manifest.recipe.parameters == {"target": "coreai", "dtype": "float32", "parts": 2, "lookahead": 6}


def test_another_lookahead_is_refused_with_what_there_is(coreai_build):
    assert Recognizer.open(coreai_build / VARIANT).lookahead == 6
    with pytest.raises(UsageError, match=r"one lookahead.\n  expected: 6\n  found: 13"):
        Recognizer.open(coreai_build / VARIANT, 13)
    with pytest.raises(UsageError, match="no provider 'cuda'"):
        open_session(Artifact.open(coreai_build / VARIANT), "cuda")


def test_an_offline_model_is_refused(tmp_path):
    from nemoport.export.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(str(damage.Path(__file__).parent.parent / "reference/checkpoints/offline-tdt.nemo"))
    with pytest.raises(UsageError, match="cut in halves for devices"):
        export(checkpoint, tmp_path)
    assert not list(tmp_path.iterdir())


def test_layers_in_another_order_are_rejected(copy, context_of, reference_checkpoint):
    def reverse(module):
        module.layers = torch.nn.ModuleList(reversed(module.layers))

    replace_graph(copy, reference_checkpoint, "stream_conformer_a", reverse)
    assert failing(context_of(copy), *QUICK) == ["numeric", "tokens", "wer", "boundary"]


def test_a_joint_that_says_only_blank_is_rejected(copy, context_of, reference_checkpoint):
    def blank(module):
        module.head.bias.data[reference_checkpoint.spec.decoding.blank_id] = 1e4

    replace_graph(copy, reference_checkpoint, "joint", blank)
    assert failing(context_of(copy), *QUICK, "cost") == ["tokens", "wer", "boundary", "cost"]


def test_nan_and_a_torn_file_are_rejected(copy, context_of, reference_checkpoint):
    def nan(module):
        module.layers[0].norm_out.weight.data[0] = float("nan")

    replace_graph(copy, reference_checkpoint, "stream_conformer_b", nan)
    (found, *_) = gates.run_gate("numeric", context_of(copy))
    assert found.status == FAIL and "NaN" in found.evidence
    program = copy / VARIANT / "joint.aimodel" / "main.mlirb"
    program.write_bytes(program.read_bytes()[:-1000])
    (found,) = gates.run_gate("contract", context_of(copy))
    assert found.status == FAIL and "joint.aimodel/main.mlirb" in found.evidence


def test_the_wrong_left_context_is_rejected(copy, context_of, reference_checkpoint):
    spec = reference_checkpoint.spec
    short = replace(reference_checkpoint, spec=replace(spec, streaming=replace(spec.streaming, left_context_enc_frames=56)))
    replace_graph(copy, short, "stream_conformer_a", lambda module: None)
    (found,) = gates.run_gate("contract", context_of(copy))
    assert found.status == FAIL
    assert "k_cache: expected float32 [3, 4, 70, 44], found float32 [3, 4, 56, 44]" in found.evidence


def test_only_batch_finds_streams_that_mix(coreai_build, context_of, monkeypatch):
    """Each stream gets its neighbour's caches, where it has one."""
    whole = AppleSession.unstack

    def roll(self, state):
        return whole(self, AppleState((*state.caches[1:], state.caches[0]), state.length, state.prompt_index))

    monkeypatch.setattr(AppleSession, "unstack", roll)
    context = context_of(coreai_build)
    context.limits = replace(context.limits, streams=1)
    assert failing(context, "batch", "tokens") == ["batch"]


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["longform", "conditions"])
def test_long_recordings_and_conditions(coreai_build, copy, context_of, reference_checkpoint, gate):
    def blank(module):
        module.head.bias.data[reference_checkpoint.spec.decoding.blank_id] = 1e4

    replace_graph(copy, reference_checkpoint, "joint", blank)
    for build, expected in ((coreai_build, []), (copy, [gate])):
        context = context_of(build)
        context.limits = context.limits.override("longform", minutes=1)
        assert failing(context, gate) == expected


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["1120ms/13", "160ms/1", "80ms/0", "1120ms/0"])
def test_every_lookahead_converts_and_passes(build, context_of, reference_checkpoint, tmp_path, profile):
    checkpoint = profiled(reference_checkpoint, profile)
    export(checkpoint, tmp_path)
    context = context_of(tmp_path, checkpoint=checkpoint)
    if profile == "1120ms/0":  # NeMo was not recorded in this profile: test_profile.py holds its mask to NeMo
        assert [r.status for r in gates.run_gate("contract", context)] == [PASS]
    else:
        assert failing(context, *QUICK) == []


@pytest.mark.slow
def test_a_told_language(tmp_path, eval_corpus):
    """The one-hot vector reaches the second half: two languages, each as from the ONNX graph."""
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(str(damage.Path(__file__).parent.parent / "reference/checkpoints/streaming-multilingual.nemo"))
    export_checkpoint(checkpoint, tmp_path)
    export(checkpoint, tmp_path)
    for language in ("en-US", "de-DE"):
        ours, theirs = (
            Recognizer.open(tmp_path / v, threads=1, language=language).transcribe_file(eval_corpus.utterances[0].path)
            for v in (VARIANT, "fp32")
        )
        assert (ours.tokens, ours.languages) == (theirs.tokens, theirs.languages)
        assert ours.tokens


def test_fp16_converts(reference_checkpoint, tmp_path):
    """Its accuracy is for a machine with f16 arithmetic: the runtime for the CPU takes seconds a chunk."""
    artifact = export(reference_checkpoint, tmp_path, "fp16")
    assert [problem for problem in runtime_problems(artifact, reference_checkpoint.spec) if problem] == []
    size = {name: (artifact.folder / f"{name}.aimodel" / "main.mlirb").stat().st_size for name in ("stream_conformer_a", "joint")}
    module = graph_modules(reference_checkpoint, 6, 2, torch.float32)[0]["stream_conformer_a"]
    weights = sum(parameter.numel() for parameter in module.parameters())
    assert 2 * weights < size["stream_conformer_a"] < 2.2 * weights
    assert isinstance(coreai.TARGET.precisions["fp16"], AppleParameters)


def test_the_card_tells_shapes_and_what_was_not_run(coreai_build, reference_checkpoint):
    from nemoport.package.card import card
    from nemoport.package.card_data import Figures
    from nemoport.package.layouts import load_layout
    from nemoport.package.terms import resolve_terms

    artifact, layout = Artifact.open(coreai_build / VARIANT), load_layout("coreai")
    terms = resolve_terms("", licence="apache-2.0", base_model=None, licence_url=None, holder=None, language="en")
    facts = CardFacts("m", "0" * 64, terms, artifact.config(), {VARIANT: artifact}, {VARIANT: Figures(())}, layout)
    text = card(facts)
    assert "speech recognition in Core AI" in text and "lookahead 6, chunks of 560 ms" in text
    assert "`k_cache` float32 [3, 4, 70, 44]" in text and "Neural Engine: not measured" in text
    assert "onnx" not in text.split("---")[1]
    assert all(path.is_dir() for path in layout.graphs(coreai_build, VARIANT))


def test_a_package_is_laid_out_and_verified(copy, tmp_path):
    """With results as validate/ writes them; the gates are tested above."""
    from nemoport.package.assemble import package
    from nemoport.package.verify import verify
    from nemoport.validate.gate_result import GateResult, artifact_sha256

    result = GateResult("contract", VARIANT, artifact_sha256(copy / VARIANT), PASS, "", 0.0, 0.0, "problems", 49)
    path = copy / "results" / f"{VARIANT}.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(result.to_dict()) + "\n")
    dist = package(
        copy, tmp_path / "dist", licence="apache-2.0", language="en", layout="coreai", required_passes=lambda build, variant: []
    )
    assert f"{VARIANT}: loads in coreai, 7 finite frames of silence" in verify(dist)
    assert "speech recognition in Core AI" in (dist / "README.md").read_text()
