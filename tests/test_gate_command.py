"""`nemoport gate`: what it builds or takes, the figures asked for, the files for CI, the exit code."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import yaml
from test_package import make, write_results

from nemoport.artifact import Artifact, Manifest
from nemoport.cli import main
from nemoport.errors import ArtifactError, OutputError, UsageError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.pipeline import gate as gates
from nemoport.pipeline import ready as readies
from nemoport.pipeline.floors import FIGURES, Asked, read_asked
from nemoport.pipeline.gate import Gated, gate
from nemoport.pipeline.run import Outcome
from nemoport.progress import silent
from nemoport.validate.gate_result import FAIL, PASS, GateResult
from nemoport.validate.run import Verdict

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "reference" / "checkpoints" / "streaming-en.nemo"


def result(gate, case, measured, status=PASS, variant="fp32", **more):
    return GateResult(gate, variant, "a" * 64, status, case, measured, n=4, **more)


RESULTS = [
    result("tokens", "all", 0.985),
    result("wer", "lookahead 0: WER", 12.5),
    result("wer", "lookahead 13: WER", 11.0),
    result("wer", "lookahead 13: NeMo's WER", 99.0),
    result("wer", "all lookaheads: difference", 0.2),
    result("cost", "speed", 8.0),
    result("cost", "bytes", 20e6),
    result("cost", "peak memory", 300e6),
]


# Figures that are asked for


@pytest.mark.parametrize(
    "text, under, passed",
    [
        ("exact=98.5", True, True),
        ("exact=98.6", True, False),
        ("speed=8", True, True),
        ("speed=8.1", True, False),
        ("wer=12.5", False, True),  # of the worst lookahead, and not NeMo's
        ("wer=12.4", False, False),
        ("above-nemo=0.2", False, True),
        ("above-nemo=0.1", False, False),
        ("megabytes=20", False, True),
        ("megabytes=19", False, False),
        ("memory=300", False, True),
        ("memory=299", False, False),
    ],
)
def test_a_figure_passes_or_fails(text, under, passed):
    (asked,) = read_asked([text] if under else [], [] if under else [text])
    judged = asked.judge("fp32", RESULTS)
    assert judged.passed == passed and judged.limit == float(text.partition("=")[2]) and judged.sha256 == "a" * 64


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_that_was_not_measured_fails(name):
    judged = Asked(name, 1e12 if not FIGURES[name].at_least else 0.0).judge("fp32", [])
    assert not judged.passed and judged.evidence == "not measured"


@pytest.mark.parametrize(
    "under, over, message",
    [
        (["wer=12"], [], "use --fail-over for wer"),
        ([], ["exact=99"], "use --fail-under for exact"),
        (["exact"], [], "mend it"),
        (["exact=many"], [], "exact, speed"),
        (["exact=nan"], [], "exact, speed"),
        ([], ["size=3"], "wer, above-nemo, megabytes, memory"),
    ],
)
def test_other_names_and_options_are_refused(under, over, message):
    with pytest.raises(UsageError, match=message):
        read_asked(under, over)


# The verdict and its files


@pytest.fixture
def plan(tmp_path):
    """A plan of nothing but names. Its build has the results of a variant that passed."""
    build = tmp_path / "build" / "en"
    (build / "results").mkdir(parents=True)
    (build / "results" / "fp32.jsonl").write_text("".join(json.dumps(r.to_dict()) + "\n" for r in RESULTS))
    corpus = SimpleNamespace(path=tmp_path / "corpus.jsonl")
    speech = SimpleNamespace(evaluation=corpus, calibration=corpus)
    from nemoport.pipeline.plan import Plan

    return Plan(read_checkpoint(str(CHECKPOINT)), build, speech, (), {"native": tmp_path / "dist"}, 1, {}, (), {})


def gated(plan, monkeypatch, problems=(), asked=(), compared=None, cache=None):
    planned = []
    verdict = Verdict({"fp32": list(problems)})
    monkeypatch.setattr(gates, "run_plan", lambda plan, progress: planned.append(plan) or Outcome(verdict, {}, {}))
    monkeypatch.setattr(gates, "against_release", lambda *given: compared)
    found = gate(plan, None, asked, None if compared is None else "release", cache, silent)
    assert planned[0].packages == {}  # publishing is the team's own
    return found


def test_what_passed_passes(plan, monkeypatch):
    found = gated(plan, monkeypatch, asked=[Asked("exact", 98)])
    assert found and found.lines() == ["Verdict: pass"] and "pass" in found.summary()
    assert [r.gate for r in found.results["fp32"]] == ["verdict", *(r.gate for r in RESULTS), "asked"]


@pytest.mark.parametrize(
    "more",
    [
        {"problems": ["gate wer was not run"]},
        {"asked": [Asked("exact", 99)]},
        {"compared": {"fp32": [result("regression", "WER above the release", 0.4, FAIL)]}},
        {"compared": {"int8-weight": [result("regression", "is in the release", None, FAIL, "int8-weight")]}},
    ],
)
def test_each_kind_of_failure_shows_everywhere(plan, monkeypatch, tmp_path, more):
    found = gated(plan, monkeypatch, **more)
    (failure,) = found.failures()
    assert not found and found.lines()[-1] == "Verdict: FAIL" and len(found.lines()) == 2
    assert found.to_dict()["passed"] is False and not found.to_dict()["variants"][failure.variant]["passed"]
    found.write_junit(tmp_path / "junit.xml")
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert sum(int(suite.get("failures")) for suite in suites) == len(suites.findall(".//failure")) == 1
    assert {suite.get("name") for suite in suites} == set(found.results)
    found.write_summary(tmp_path / "summary.md")
    assert "FAIL" in (tmp_path / "summary.md").read_text()


def test_nothing_judged_is_no_pass(tmp_path):
    assert not Gated(tmp_path, {})


def test_a_summary_is_added_to_and_marks_nothing_up(plan, monkeypatch, tmp_path):
    harm = result("asked", "exact", 1.0, FAIL, evidence="said: <script> | `code` **bold**\nline")
    found = gated(plan, monkeypatch, compared={"fp32": [harm]})
    (tmp_path / "summary.md").write_text("before\n")
    found.write_summary(tmp_path / "summary.md")
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("before\n## nemoport gate: FAIL") and "\\<script\\>" in text and "\\*\\*bold" in text
    assert "| fp32 |" in text and "\n- `fp32`, asked: exact" in text
    with pytest.raises(OutputError):
        found.write_summary(tmp_path)


def test_many_failures_fit_the_page_of_a_job(plan, monkeypatch):
    found = gated(plan, monkeypatch, compared={"fp32": [result("asked", str(i), 1.0, FAIL) for i in range(1000)]})
    assert "- and 800 more" in found.summary()


# NeMo's runs, kept from job to job


def test_the_cache_keeps_nemos_runs(plan, monkeypatch, tmp_path):
    gated(plan, monkeypatch, cache=tmp_path / "cache")
    (plan.build / "oracle" / "0123").mkdir()
    other = replace(plan, build=tmp_path / "other")
    (tmp_path / "other" / "results").mkdir(parents=True)
    gated(other, monkeypatch, cache=tmp_path / "cache")
    gated(other, monkeypatch, cache=tmp_path / "cache")  # again
    assert (tmp_path / "other" / "oracle" / "0123").is_dir() and (tmp_path / "cache" / "oracle" / "0123").is_dir()
    own = replace(plan, build=tmp_path / "own")
    (tmp_path / "own" / "oracle" / "4567").mkdir(parents=True)
    gated(own, monkeypatch, cache=tmp_path / "cache")
    assert (tmp_path / "own" / "oracle" / "4567").is_dir()  # what a build has recorded by itself stays


# What is ready


@pytest.fixture
def package(build, tmp_path):
    copy = shutil.copytree(build, tmp_path / "made")
    write_results(copy, "fp32")
    return make(copy, tmp_path / "dist")


@pytest.fixture
def validated(monkeypatch):
    asked = []

    def validate(checkpoint, build, corpus, variants, calibration, **more):
        asked.append((build, variants, {name: Artifact.open(build / name).manifest.variant for name in variants}))
        return Verdict({name: [] for name in variants})

    monkeypatch.setattr(readies, "validate", validate)
    return asked


@pytest.mark.parametrize("place", ["dist", "made", "made/fp32"])
def test_a_package_or_a_build_is_judged_as_it_is(plan, package, validated, tmp_path, place):
    before = {path: path.read_bytes() for path in (tmp_path / place).rglob("*") if path.is_file()}
    found = gate(plan, tmp_path / place, [], None, None, silent)
    assert validated == [(tmp_path / "build" / "en-ready", ["fp32"], {"fp32": "fp32"})] and list(found.results) == ["fp32"]
    assert {path: path.read_bytes() for path in (tmp_path / place).rglob("*") if path.is_file()} == before
    gate(plan, tmp_path / place, [], None, None, silent)  # again


def test_full_precision_is_exported_for_a_package_without(plan, package, validated, monkeypatch):
    """Which the gate `cost` compares with."""
    manifest = Manifest.read(package / "fp32")
    recipe = replace(manifest.recipe, variant="int8-weight", parent="fp32")
    other = shutil.copytree(package.parent / "made", package.parent / "int8")
    (other / "fp32").rename(other / "int8-weight")
    replace(manifest, variant="int8-weight", recipe=recipe, recipe_digest=recipe.digest).write(other / "int8-weight")
    exported = []

    def export_target(checkpoint, build, target, precision, calibration, caches, progress):
        exported.append((build.name, target, precision, caches))
        return Artifact.open(package / "fp32")

    monkeypatch.setattr(readies, "export_target", export_target)
    gate(plan, other, [], None, None, silent)
    assert exported == [("en-ready-fp32", "onnx", "fp32", "nemo")] and validated[0][1] == ["int8-weight"]
    assert (validated[0][0] / "fp32" / "manifest.json").is_file()


def test_a_package_of_another_checkpoint_or_a_damaged_one_is_not_judged(plan, package, validated):
    other = replace(plan, checkpoint=replace(plan.checkpoint, sha256="0" * 64))
    with pytest.raises(UsageError, match="another checkpoint"):
        gate(other, package, [], None, None, silent)
    (package / "LICENSE").write_text("none")
    with pytest.raises(ArtifactError, match="LICENSE"):
        gate(plan, package, [], None, None, silent)
    assert validated == []


# The command


def test_exit_codes_and_files(plan, monkeypatch, tmp_path, capsys):
    from nemoport.pipeline import plan as plans

    monkeypatch.setattr(plans, "make_plan", lambda *given: plan)
    monkeypatch.setattr(gates, "run_plan", lambda plan, progress: Outcome(Verdict({"fp32": []}), {}, {}))
    command = ["gate", "--checkpoint", "my.nemo", "--junit", str(tmp_path / "j.xml"), "--summary", str(tmp_path / "s.md")]
    assert main([*command, "--fail-under", "exact=98", "--fail-under", "speed=1", "--fail-over", "wer=20"]) == 0
    assert capsys.readouterr().out == "Verdict: pass\n"
    assert main([*command, "--fail-under", "exact=99", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["variants"]["fp32"]["passed"] is False
    assert (tmp_path / "j.xml").read_text().count("<failure") == 1 and (tmp_path / "s.md").read_text().count(
        "## nemoport gate"
    ) == 2
    assert main([*command, "--fail-under", "wer=9"]) == 2
    assert main([*command, "--against", str(tmp_path / "absent")]) == 2


@pytest.mark.slow
def test_a_package_is_judged_by_every_gate(build, tmp_path):
    """Ten utterances are few: the gate `conditions` alone may fail for the interval, in full precision none does."""
    pytest.importorskip("nemo")
    copy = shutil.copytree(build, tmp_path / "made")
    write_results(copy, "fp32")
    package = make(copy, tmp_path / "dist")
    manifests = []
    for stem, count in (("eval", 10), ("calibration", 6)):
        rows = [json.loads(line) for line in (ROOT / f"reference/audio/{stem}.jsonl").read_text().splitlines()]
        rows = sorted(rows, key=lambda row: row["duration"])[:count]
        manifests.append(tmp_path / f"{stem}.jsonl")
        places = [{**row, "audio_filepath": str(ROOT / "reference" / "audio" / row["audio_filepath"])} for row in rows]
        manifests[-1].write_text("".join(json.dumps(row) + "\n" for row in places))
    command = ["gate", "--checkpoint", str(CHECKPOINT), "--package", str(package), "--build", str(tmp_path / "build" / "en")]
    command += ["--corpus", str(manifests[0]), "--calibration", str(manifests[1]), "--cache", str(tmp_path / "cache")]
    command += ["--against", str(package), "--junit", str(tmp_path / "j.xml"), "-q", "--jobs", "1"]
    assert main([*command, "--fail-under", "exact=100"]) == 0
    assert main([*command, "--fail-over", "wer=0.1"]) == 1
    assert (tmp_path / "cache" / "oracle").is_dir() and "regression" in (tmp_path / "j.xml").read_text()


# The workflow


def test_the_reusable_workflow_runs_the_command_with_pinned_actions():
    text = (ROOT / ".github" / "workflows" / "gate.yml").read_text()
    workflow = yaml.safe_load(text)
    (job,) = workflow["jobs"].values()
    called = workflow[True]["workflow_call"]  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    uses = re.findall(r"uses: (\S+)", text)
    assert uses and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", one) for one in uses)
    # Inputs reach the shell as variables: an expression in a script would be run.
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert not any("${{" in script for script in scripts)
    script = "\n".join(scripts)
    for option in ("--checkpoint", "--corpus", "--cache", "--junit", '--summary "$GITHUB_STEP_SUMMARY"', "--against"):
        assert option in script, option
    named = {name for step in job["steps"] for name in re.findall(r"inputs\.(\w+)", json.dumps(step))}
    assert named == set(called["inputs"])
