"""`validate` without a model: what is judged, in which order, what stands, and what the verdict is."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemoport.artifact import Recipe
from nemoport.errors import ArtifactError, CorpusError, OutputError
from nemoport.speech.corpus import Corpus, Utterance
from nemoport.validate import gates, limits, run
from nemoport.validate.context import Context
from nemoport.validate.details import read_details
from nemoport.validate.gate_result import FAIL, GateResult
from nemoport.validate.oracle import Oracle
from nemoport.validate.report import table
from nemoport.validate.result_store import read_results, required_passes, results_path
from nemoport.validate.run import ACCURACY_GATES, judge, validate
from nemoport.validate.stamps import read_evaluation
from nemoport.variant import GRAPH_ROLES, Variant

SPEECH = Utterance("a", Path("a.wav"), "yes", 3.0, "0" * 64, 16000)
OTHER = replace(SPEECH, id="b", sha256="1" * 64)
CORPUS, CALIBRATION = Path("corpus.jsonl"), Path("calibration.jsonl")
REQUIRED = list(limits.limits_of("fp32").required)


class World:
    """A build of variants without graphs; its gates note that they were run, and pass but for those in `failing`."""

    def __init__(self, folder, checkpoint, monkeypatch):
        self.build, self.checkpoint, self.ran, self.lines, self.failing = folder / "build", checkpoint, [], [], set()
        self.baselines, self.asked, self.digest = [], [], "0" * 64
        self.corpora = {CORPUS: Corpus(CORPUS, (SPEECH,)), CALIBRATION: Corpus(CALIBRATION, (OTHER,))}
        monkeypatch.setattr(Utterance, "samples", lambda u: np.random.default_rng(int(u.sha256[0])).uniform(-1, 1, 48000))
        monkeypatch.setattr(run, "read_corpus", lambda path, rate_hz: {16000: self.corpora}[rate_hz][path])
        monkeypatch.setattr(run, "record_oracle", self.oracle)
        monkeypatch.setattr(run, "record_baseline", self.baseline)
        monkeypatch.setattr(gates, "run_gate", self.run_gate)

    def add(self, *variants):
        for name in variants:
            made = Variant(self.build, Recipe(name, None), self.checkpoint.sha256)
            made.folder.mkdir(parents=True)
            for file in GRAPH_ROLES.values():
                (made.folder / file).write_text(name)
            made.write_manifest(made.folder)

    def oracle(self, checkpoint, corpus, build, progress):
        assert (checkpoint, corpus, build) == (self.checkpoint, self.corpora[CORPUS], self.build)
        progress("oracle: recorded")
        return Oracle(self.digest, build / "oracle", {})

    def baseline(self, checkpoint, corpus, oracle, build, progress, threads):
        progress("baseline: measured")
        self.baselines.append((checkpoint.sha256, corpus, oracle.digest, build, threads))
        return []

    def run_gate(self, name, context):
        assert context.folder == self.build / context.folder.name and context.checkpoint is self.checkpoint
        assert (context.corpus, context.oracle.digest) == (self.corpora[CORPUS], self.digest)
        self.ran.append((context.variant, name, context.threads, context.provider))
        if not context.folder.is_dir():
            return [context.stamp(GateResult(name, context.variant, "", FAIL, evidence="no artifact"))]
        result = GateResult(name, context.variant, context.sha256, "pass", measured=1.0, n=1)
        return [context.stamp(replace(result, status=FAIL) if (context.variant, name) in self.failing else result)]

    def validate(self, variants=None, calibration=CALIBRATION, **options):
        self.ran.clear()
        self.lines.clear()
        return validate(
            self.checkpoint,
            self.build,
            CORPUS,
            variants,
            calibration,
            progress=lambda one: self.lines.append(str(one)),
            **options,
        )


@pytest.fixture
def world(tmp_path, reference_checkpoint, monkeypatch):
    return World(tmp_path, reference_checkpoint, monkeypatch)


def test_every_required_gate_of_every_variant_is_run_and_cost_behind_all_others(world):
    world.add("fp16", "fp32", "int8-static-cold")
    verdict = world.validate(threads=3)
    assert verdict and verdict.lines() == [] and verdict.extras == ("extra-int8-static-cold",)
    first = [(name, gate) for name in ("fp32", "fp16") for gate in sorted(REQUIRED) if gate != "cost"]
    extra = [("int8-static-cold", gate) for gate in sorted(ACCURACY_GATES)]
    assert [(name, gate) for name, gate, _, _ in world.ran] == [*first, *extra, ("fp32", "cost"), ("fp16", "cost")]
    assert {(threads, provider) for _, _, threads, provider in world.ran} == {(3, "cpu")}
    assert {path.name for path in (world.build / "results").iterdir()} == {
        "fp32.jsonl", "fp16.jsonl", "extra-int8-static-cold.jsonl", "report.md", "report.html", "junit.xml", "evaluation.json",
    }  # fmt: skip
    for name in ("fp32", "fp16"):
        assert [r.gate for r in read_results(results_path(world.build, name))] == sorted(REQUIRED)
        assert required_passes(world.build, name) == []
    assert [r.gate for r in read_results(results_path(world.build, "extra-int8-static-cold"))] == sorted(ACCURACY_GATES)
    assert read_evaluation(world.build).providers == {"fp32": "cpu", "fp16": "cpu"}
    shown = table(world.build, [*verdict.problems, *verdict.extras]).splitlines()
    assert [line.split()[0] for line in shown] == ["variant", "fp32", "fp16", "int8-static-cold"]


def test_what_validate_does_where_nothing_is_said(world, monkeypatch):
    """On the processor, with the runtime's choice of threads, one after another, beside NeMo's own export, in silence; and the
    checkpoint may be a path."""
    assert ACCURACY_GATES == ("numeric", "tokens", "wer", "longform")
    world.add("fp32")
    monkeypatch.setattr(run, "map_in_processes", None)
    monkeypatch.setattr(run, "read_checkpoint", {"a.nemo": world.checkpoint}.get)
    assert validate(Path("a.nemo"), world.build, CORPUS)
    assert {(threads, provider) for _, _, threads, provider in world.ran} == {(0, "cpu")}
    assert [threads for *_, threads in world.baselines] == [0]
    world.validate()
    assert world.lines[:2] == ["oracle: recorded", "baseline: measured"]
    assert any(line.startswith("writing report.html") for line in world.lines) and run.Verdict({}).extras == ()


def test_corpora_that_are_read_already_are_not_read_again(world, monkeypatch):
    world.add("fp32")
    monkeypatch.setattr(run, "read_corpus", lambda *asked: pytest.fail("read"))
    evaluation, calibration = world.corpora[CORPUS], world.corpora[CALIBRATION]
    assert validate(world.checkpoint, world.build, evaluation, calibration=calibration, baseline=False)
    with pytest.raises(CorpusError, match="overlap"):
        validate(world.checkpoint, world.build, evaluation, calibration=replace(evaluation, path=CALIBRATION), baseline=False)


def test_the_memory_is_that_of_the_largest_file_for_each_variant_at_once(world, monkeypatch):
    world.add("fp32", "fp16", "int8-dynamic")
    (world.build / "fp16" / "deeper").mkdir()
    (world.build / "fp16" / "deeper" / "large").write_bytes(bytes(5000))
    asked = []
    monkeypatch.setattr(run, "check_free", lambda *given: asked.append(given))
    monkeypatch.setattr(run, "_judge_all", lambda tasks, jobs, *rest: [])
    monkeypatch.setattr(run, "write_page", lambda build: None)  # there are no results
    for variants, jobs, memory, largest in (
        (None, 1, 1, 5000),
        (None, 2, 2, 5000),
        (["fp16", "fp32"], 5, 2, 5000),
        (["int4-weight"], 1, 1, 0),
    ):
        world.validate(variants, jobs=jobs)
        *given, progress = asked.pop()
        assert given == ["validate", largest, run.Needs(memory=memory, held=1.0), world.build]
        progress("shown")
        assert world.lines[-1] == "shown"


def test_before_judging_leftovers_go_and_repeats_are_printed(world, monkeypatch):
    swept = []
    world.add("fp32")
    monkeypatch.setattr(run, "sweep_leftovers", swept.append)
    other = replace(SPEECH, id="again", prompt_language="de")
    world.corpora[CORPUS] = Corpus(CORPUS, (SPEECH, other))
    assert world.validate() and swept == [world.build]
    assert world.lines[0] == f"{CORPUS} has audio twice, which counts twice: 1 pairs, such as a = again"


def test_comparisons_have_the_limits_of_the_variant_with_the_longest_name_before_theirs(world):
    world.add("fp32", "fp32-x", "int8-static-cold", "kv-int8-static-cold", "int8-dynamic-by-batch", "other-y", "fp32x")
    assert run.comparisons(world.build) == {
        "fp32-x": "fp32",
        "int8-dynamic-by-batch": "int8-dynamic",
        "int8-static-cold": "int8-static",
        "kv-int8-static-cold": "kv-int8-static",
    }
    assert run.built(world.build) == ["fp32"]


def test_the_reports_are_of_the_baselines_and_the_verdict_of_all_that_was_judged(world, monkeypatch):
    world.add("fp32", "int8-static-cold")
    written = []
    monkeypatch.setattr(run, "record_baseline", lambda *given: ["baseline"])
    monkeypatch.setattr(run, "write_reports", lambda *given: written.append(given))
    verdict = world.validate()
    assert [*verdict.problems] == ["fp32"] and verdict.extras == ("extra-int8-static-cold",)
    assert written == [(world.build, ["baseline"])]
    assert world.validate(baseline=False) and written[1:] == [(world.build, [])]


def test_a_verdict_as_json_and_in_lines():
    verdict = run.Verdict({"fp32": [], "fp16": ["one", "two"]})
    assert not verdict and run.Verdict({"fp32": []})
    assert verdict.to_dict() == {"fp32": {"passed": True, "problems": []}, "fp16": {"passed": False, "problems": ["one", "two"]}}
    assert verdict.lines() == ["fp16: one", "fp16: two"]


def test_what_passed_stands_and_what_failed_is_run_again(world):
    world.add("fp32")
    world.failing = {("fp32", "wer"), ("fp32", "cost")}
    verdict = world.validate()
    assert not verdict and sum("fp32: gate" in line for line in verdict.lines()) == 2
    assert {r.gate: r.passed for r in read_results(results_path(world.build, "fp32"))} == {
        gate: gate not in ("wer", "cost") for gate in REQUIRED
    }
    assert "fp32: wer: 1 of 1 figures fail" in world.lines and "fp32: tokens: pass" in world.lines
    assert not world.validate()
    assert [gate for _, gate, _, _ in world.ran] == ["wer", "cost"]
    assert "fp32: tokens: unchanged, passed before" in world.lines
    world.failing = set()
    assert world.validate() and [gate for _, gate, _, _ in world.ran] == ["wer", "cost"]
    assert world.validate() and world.ran == []
    assert [r.gate for r in read_results(results_path(world.build, "fp32"))] == sorted(REQUIRED)
    world.digest = "1" * 64  # another corpus
    assert world.validate() and len(world.ran) == len(REQUIRED)


def test_what_a_gate_keeps_stands_as_long_as_its_results(world, monkeypatch):
    world.add("fp32")
    minutes = [{"number": 0, "words": 9, "wer": 1.0, "nemo": 2.0}]

    def keeping(name, context):
        results = world.run_gate(name, context)
        if name == "longform":
            assert not results_path(world.build, "fp32").is_file() or name not in {r.gate for r in stored()}
            context.details[name] = {"lookahead": 6, "minutes": minutes, "drift": []}
        return results

    def stored():
        return read_results(results_path(world.build, "fp32"))

    def kept():
        return read_details(results_path(world.build, "fp32"), "longform", stored())["minutes"]

    monkeypatch.setattr(gates, "run_gate", keeping)
    assert world.validate() and kept() == minutes
    minutes = [{**minutes[0], "number": 7}]
    assert world.validate() and world.ran == [] and kept()[0]["number"] == 0
    assert "minute" in (world.build / "results" / "report.html").read_text()
    results_path(world.build, "fp32").unlink()
    assert world.validate() and kept()[0]["number"] == 7


def test_a_failed_comparison_does_not_count(world):
    world.add("fp32", "int8-static-cold")
    world.failing = {("int8-static-cold", gate) for gate in ACCURACY_GATES}
    assert world.validate()


def test_named_variants_are_judged_and_no_other(world):
    world.add("fp32", "fp16", "int8-static-cold")
    assert world.validate(["fp16"], provider="cuda")
    assert {(name, provider) for name, _, _, provider in world.ran} == {("fp16", "cuda")}
    assert read_evaluation(world.build).providers == {"fp16": "cuda"}
    verdict = world.validate(["fp16", "int8-dynamic"])  # which is not built
    assert not verdict
    assert any(line.startswith("int8-dynamic:") and "manifest.json is missing" in line for line in verdict.lines())


def test_overlap_of_calibration_and_evaluation_is_refused_before_anything_runs(world):
    world.add("fp32")
    world.corpora[CALIBRATION] = Corpus(CALIBRATION, (*world.corpora[CALIBRATION].utterances, replace(SPEECH, id="copy")))
    with pytest.raises(CorpusError, match="copy = a"):
        world.validate()
    assert world.ran == [] and not (world.build / "results").exists()
    assert world.validate(calibration=None)


def test_a_recording_twice_in_the_evaluation_is_refused(world):
    world.add("fp32")
    world.corpora[CORPUS] = Corpus(CORPUS, (SPEECH, replace(SPEECH, id="again")))
    with pytest.raises(CorpusError, match="a = again"):
        world.validate()


def test_an_empty_build_is_refused(world):
    world.build.mkdir()
    with pytest.raises(ArtifactError, match="nothing to validate"):
        world.validate()


def test_the_baseline_is_of_streaming_models_without_a_profile(world):
    world.add("fp32")
    world.validate(threads=2)
    assert world.baselines == [(world.checkpoint.sha256, world.corpora[CORPUS], "0" * 64, world.build, 2)]
    world.validate(baseline=False)
    spec = world.checkpoint.spec
    profile = replace(spec, streaming=replace(spec.streaming, attention_lookahead=6))
    world.checkpoint = replace(world.checkpoint, spec=profile)
    world.validate()
    assert len(world.baselines) == 1


@pytest.mark.parametrize(
    ("processors", "jobs", "threads", "share"),
    [(8, 2, 0, 4), (3, 2, 0, 1), (1, 2, 0, 1), (8, 2, 5, 5), (8, 1, 0, 0), (None, 2, 0, 1)],
)
def test_jobs_share_the_processors_but_for_the_cost(world, monkeypatch, processors, jobs, threads, share):
    world.add("fp32", "fp16")
    monkeypatch.setattr(run.os, "cpu_count", lambda: processors)
    given = []

    def in_turn(work, tasks, count, progress):
        given.append(count)
        assert {context.progress for context, *_ in tasks} == {run.report}  # which another process can be given
        progress("of all processes")
        assert world.lines[-1] == "of all processes"
        return [work(task) for task in tasks]

    monkeypatch.setattr(run, "map_in_processes", in_turn)
    monkeypatch.setattr(run, "report", world.lines.append)
    assert world.validate(jobs=jobs, threads=threads)
    assert given == ([2] if jobs == 2 else [])
    assert {found for _, gate, found, _ in world.ran if gate != "cost"} == {share}
    assert {found for _, gate, found, _ in world.ran if gate == "cost"} == {threads}


def context_of(world):
    return Context(
        world.build / "fp32", limits.limits_of("fp32"), world.checkpoint, world.corpora[CORPUS], Oracle("0" * 64, Path(), {})
    )


def test_results_are_written_after_each_gate(world, monkeypatch):
    """A run that is killed, or for which the disk is full, leaves what was judged, and what had passed before."""
    world.add("fp32")
    path = results_path(world.build, "fp32")
    judge(context_of(world), path, ["tokens", "wer"])
    ran = world.run_gate

    def full(name, context):
        if name == "numeric":
            raise OutputError("full", expected="", found="", todo="")
        return ran(name, context)

    monkeypatch.setattr(gates, "run_gate", full)
    with pytest.raises(OutputError):
        judge(context_of(world), path, ["boundary", "numeric", "tokens", "wer"])
    assert [r.gate for r in read_results(path)] == ["boundary", "tokens", "wer"]


def test_standing_results_are_kept_beside_new_ones(world):
    world.add("fp32")
    path = results_path(world.build, "fp32")
    standing = [GateResult(gate, "fp32", "", FAIL) for gate in ("wer", "cost", "boundary")]
    found = judge(context_of(world), path, ["cost"], standing)
    assert [(r.gate, r.passed) for r in found] == [("cost", True)]
    assert [(r.gate, r.passed) for r in read_results(path)] == [("boundary", False), ("cost", True), ("wer", False)]


def test_unreadable_results_and_a_missing_artifact_are_judged_anew(world):
    world.add("fp32")
    path = results_path(world.build, "fp32")
    judge(context_of(world), path, ["wer"])
    path.write_text("{")
    world.ran.clear()
    judge(context_of(world), path, ["wer"])
    assert len(world.ran) == 1
    shutil.rmtree(world.build / "fp32")
    assert run._reusable(context_of(world), path) == {}
