"""`validate --against`: a variant that lost words, tokens or its small size against the last published package fails."""

import json
import shutil
from dataclasses import replace

import damage
import pytest
from test_package import add_variant, make, write_results

from nemoport.errors import ArtifactError, UsageError
from nemoport.package.opening import artifact_folders
from nemoport.pipeline import release as releases
from nemoport.pipeline.release import against_release, read_release
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.limits import limits_of
from nemoport.validate.regression import LIMITS, Side, gone, judged_side, read_regression_limits, regressions
from nemoport.validate.result_store import results_path

WORDS = [10] * 40


def texts(*runs):
    return {"words": WORDS, "runs": [{"lookahead": r, "errors": errors, "nemo_errors": errors} for r, errors in runs]}


def side(errors=(1,) * 40, exact=1.0, size=1000, lookaheads=(6, 13), sha256="a" * 64):
    exact_share = GateResult("tokens", "v", sha256, "pass", "all", exact, n=40)
    return Side(sha256, size, [exact_share], texts(*((r, list(errors)) for r in lookaheads)))


def failed(now, before, **more):
    found = regressions("v", now, before, **({"same_checkpoint": True} | more))
    assert {r.gate for r in found} == {"regression"} and all(r.sha256 == now.sha256 for r in found)
    return {r.case for r in found if not r.passed}


ABOVE, LOWER, BYTES, EXACT = (
    "WER above the release",
    "WER above the release: lower end",
    "bytes of the release's",
    "lost share of token-exact runs",
)


@pytest.mark.parametrize(
    "now, cases",
    [
        (side(), set()),
        (side(errors=[0] * 40), set()),  # better
        (side(errors=[2] * 40), {ABOVE, LOWER}),  # each utterance lost a word
        (side(errors=[1] * 39 + [2]), set()),  # 0.25 points, an interval from 0: chance
        (side(errors=[1] * 38 + [2, 2]), {ABOVE}),  # 0.5 points
        (side(errors=[1] * 20 + [2, 0] * 10), set()),
        (side(exact=0.995), set()),
        (side(exact=0.98), {EXACT}),
        (side(exact=float("nan")), {EXACT}),
        (side(size=1020), set()),
        (side(size=1021), {BYTES}),
        (side(size=400), set()),
    ],
)
def test_what_is_lost_fails(now, cases):
    assert failed(now, side()) == cases


def test_differences_are_paired_over_the_lookaheads_that_both_serve():
    now = replace(side(), texts=texts((6, [1] * 40), (13, [9] * 40)))
    found = {r.case: r for r in regressions("v", now, side(lookaheads=(6,)), same_checkpoint=True)}
    assert found[ABOVE].measured == 0.0 and found[ABOVE].interval == (0.0, 0.0) and found[ABOVE].n == 40
    with pytest.raises(ArtifactError, match="cannot be compared"):
        regressions("v", side(lookaheads=(6,)), side(lookaheads=(1,)), same_checkpoint=True)
    with pytest.raises(ArtifactError, match="cannot be compared"):
        other = replace(side(), texts={**side().texts, "words": [9] * 40})
        regressions("v", side(), other, same_checkpoint=True)


def test_nemos_tokens_are_no_measure_of_another_checkpoint():
    assert EXACT not in {r.case for r in regressions("v", side(exact=0.1), side(), same_checkpoint=False)}


def test_limits_have_reasons_and_decide():
    import tomllib

    assert all(table["reason"] for table in tomllib.loads(LIMITS.read_text()).values())
    limits = read_regression_limits()
    limits["size"]["max_bytes_ratio"] = 1.5
    assert regressions("v", side(size=1400), side(), same_checkpoint=True, limits=limits)[2].passed


def test_a_variant_that_is_gone_fails():
    assert not gone("int8-weight").passed


# Packages and builds


@pytest.fixture
def world(build, reference_checkpoint, eval_corpus, oracle, tmp_path, monkeypatch):
    """A published package, and a build that was validated on the same recordings, at one lookahead."""
    spec = reference_checkpoint.spec
    checkpoint = replace(reference_checkpoint, spec=replace(spec, streaming=replace(spec.streaming, lookaheads=(6,))))
    copy = damage.copy_build(build, tmp_path / "build")
    write_results(copy, "fp32")
    package = make(copy, tmp_path / "dist")
    monkeypatch.setattr(releases, "read_corpus", lambda path, rate_hz: eval_corpus)
    monkeypatch.setattr(releases, "record_oracle", lambda *given: oracle)

    def validated():
        (copy / "results" / "fp32.jsonl").unlink(missing_ok=True)
        context = Context(copy / "fp32", limits_of("fp32"), checkpoint, eval_corpus, oracle)
        judged_side(context, results_path(copy, "fp32"))
        return {
            variant: {r.case for r in found if not r.passed}
            for variant, found in against_release(checkpoint, copy, tmp_path, read_release(str(package)), ["fp32"]).items()
        }

    return copy, package, validated


def test_the_same_files_lose_nothing_and_damaged_ones_do(world):
    copy, package, validated = world
    assert validated() == {"fp32": set()}
    shown = json.loads((copy / "results" / "release").glob("*/fp32.jsonl").__next__().read_text().splitlines()[0])
    assert shown["variant"] == "fp32"  # the release's results are kept
    damage.edit_weight(copy, "encoder_model.onnx", damage.is_matrix, damage.shuffle_scales)
    assert {ABOVE, EXACT} <= validated()["fp32"]


def test_a_release_that_does_not_run_is_named(world):
    copy, package, validated = world
    (package / "fp32" / "encoder_model.onnx.data").write_bytes(b"")
    with pytest.raises(ArtifactError, match="no errors of single utterances"):
        validated()


def test_a_variant_of_the_release_that_is_not_built_fails(build, tmp_path, reference_checkpoint, monkeypatch):
    copy = shutil.copytree(build, tmp_path / "build")
    write_results(copy, "fp32")
    add_variant(copy, "int8-dynamic")
    package = make(copy, tmp_path / "dist")
    monkeypatch.setattr(releases, "read_corpus", lambda path, rate_hz: None)
    monkeypatch.setattr(releases, "record_oracle", lambda *given: None)
    found = against_release(reference_checkpoint, copy, tmp_path, read_release(str(package)), [])
    assert {variant: [r.case for r in rows] for variant, rows in found.items()} == {
        "fp32": ["is in the release"],
        "int8-dynamic": ["is in the release"],
    }


def test_a_layout_for_its_consumer_alone_is_no_release(build, tmp_path):
    copy = shutil.copytree(build, tmp_path / "build")
    write_results(copy, "fp32")
    package = make(copy, tmp_path / "dist", layout="sherpa-onnx")
    with pytest.raises(UsageError, match="for its consumer alone"):
        read_release(str(package)).folder("fp32")
    assert artifact_folders(copy) == {"fp32": copy / "fp32"} == artifact_folders(copy / "fp32")


@pytest.mark.parametrize("place", ["absent-folder", "someone/absent"])
def test_a_release_that_cannot_be_had_is_unusable_input(place, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*given, **more):
        raise OSError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(ArtifactError):
        read_release(place)


def test_a_release_on_the_hub_is_downloaded_variant_by_variant(build, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    copy = shutil.copytree(build, tmp_path / "build")
    write_results(copy, "fp32")
    package = make(copy, tmp_path / "dist")
    asked = []
    monkeypatch.setattr(
        hub, "hf_hub_download", lambda repo, name, revision: asked.append((repo, name, revision)) or package / name
    )
    monkeypatch.setattr(releases, "variant_folder", lambda place, variant: asked.append((place, variant)) or package / variant)
    release = read_release("someone/model@v1")
    assert release.folder("fp32") == package / "fp32"
    assert asked == [("someone/model", "manifest.json", "v1"), ("someone/model@v1", "fp32")]
