"""`nemoport run`: what is chosen, planned, done in order, kept and replaced. `make demo` runs it on the committed checkpoint."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from samples import OFFLINE_SPEC, SPEC

from nemoport.cli import main
from nemoport.errors import ArtifactError, CorpusError, OutputError, UsageError
from nemoport.package.manifest import PackagedVariant, PackageManifest, hash_files
from nemoport.pipeline import plan as plans
from nemoport.pipeline import run
from nemoport.pipeline import run as runs
from nemoport.pipeline import speech as speeches
from nemoport.pipeline.estimate import estimates, total
from nemoport.pipeline.plan import Wanted, make_plan
from nemoport.pipeline.run import Outcome, run_plan
from nemoport.pipeline.speech import choose_speech
from nemoport.pipeline.variants import planned_variants
from nemoport.progress import Step, silent
from nemoport.spec import ModelSpec
from nemoport.speech.corpus import Corpus, read_corpus
from nemoport.validate.run import Verdict

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "reference" / "checkpoints" / "streaming-en.nemo"
NVIDIA = "nvidia/nemotron-speech-streaming-en-0.6b"  # whose licence is known
STREAMING, OFFLINE = ModelSpec.from_dict(SPEC), ModelSpec.from_dict(OFFLINE_SPEC)


def names(spec, **wanted):
    return [variant.name for variant in planned_variants(spec, **wanted)]


@pytest.mark.parametrize(
    "spec, wanted, expected",
    [
        (STREAMING, {}, "fp32 fp16 int8-dynamic int8-smoothquant int8-static int8-weight kv-fp32 kv-int8-dynamic kv-int8-weight"),
        (STREAMING, {"quick": True}, "kv-fp32 kv-int8-weight"),
        (STREAMING, {"quick": True, "caches": ["nemo"]}, "fp32 int8-weight"),
        (STREAMING, {"wanted": ["int4-weight"], "caches": ["kv"]}, "kv-fp32 kv-int4-weight"),
        (STREAMING, {"wanted": ["int8-weight", "fp16"]}, "fp32 fp16 int8-weight kv-fp32 kv-fp16 kv-int8-weight"),
        (STREAMING, {"targets": ["coreml"]}, "coreml-fp32 coreml-fp16 coreml-int8 coreml-int4"),
        (
            STREAMING,
            {"targets": ["onnx", "coreai"], "wanted": ["fp16"], "caches": ["kv"]},
            "kv-fp32 kv-fp16 coreai-fp16",
        ),
        (OFFLINE, {}, "fp32 fp16 int8-dynamic int8-smoothquant int8-static int8-weight"),
        (OFFLINE, {"quick": True}, "fp32 int8-weight"),
        (OFFLINE, {"targets": ["onnx", "coreml"], "wanted": ["fp32"], "windows_s": [5, 15]}, "fp32 coreml-fp32"),
    ],
)
def test_variants_by_kind_and_wish(spec, wanted, expected):
    assert names(spec, **wanted) == expected.split()


def test_what_a_variant_is_made_of_and_needs():
    found = {variant.name: variant for variant in planned_variants(STREAMING, ["onnx", "coreml"])}
    assert {name for name, one in found.items() if one.needs_calibration} == {
        "fp16", "int8-dynamic", "int8-smoothquant", "int8-static", "kv-int8-dynamic",
    }  # fmt: skip
    assert (found["kv-int8-weight"].target, found["coreml-int8"].target) == ("onnx", "coreml")
    assert found["coreml-int8"].precision == "int8" and found["fp32"].needs.memory > 2


def test_windows_are_of_the_targets_that_have_them(monkeypatch, tmp_path):
    from nemoport.pipeline import variants

    found = {one.name: one for one in planned_variants(OFFLINE, ["onnx", "coreml"], ["fp32"], windows_s=[5, 15])}
    made = {}
    monkeypatch.setattr(variants, "export_target", lambda *a, windows_s, **more: made.update({a[2]: windows_s}))
    for one in found.values():
        one.build(None, tmp_path, None, silent)
    assert made == {"onnx": (), "coreml": (5, 15)}


@pytest.mark.parametrize(
    "spec, wanted, message",
    [
        (STREAMING, {"wanted": ["int8"]}, "no precision 'int8'"),
        (STREAMING, {"caches": ["both"]}, "no cache layout 'both'"),
        (OFFLINE, {"caches": ["kv"]}, "no cache layout 'kv'"),
        (STREAMING, {"targets": ["tensorflow"]}, "Unknown target"),
        (STREAMING, {"targets": ["coreai"], "wanted": ["int4-weight"]}, "no precision 'int4-weight'"),
        (STREAMING, {"targets": ["coreml"], "windows_s": [5]}, "makes no windows of streaming-rnnt"),
        (OFFLINE, {"targets": ["onnx", "openvino"], "windows_s": [5]}, "makes no windows of offline"),
        (OFFLINE, {"targets": ["coreml"], "windows_s": [0]}, "windows cannot be made"),
    ],
)
def test_names_that_do_not_exist(spec, wanted, message):
    with pytest.raises(UsageError, match=message):
        planned_variants(spec, **wanted)


@pytest.mark.parametrize("name, stem", [("streaming-en", ""), ("offline-tdt", "-tdt"), ("streaming-multilingual", "-multi")])
def test_the_speech_of_a_clone_is_that_of_the_kind(monkeypatch, name, stem):
    from nemoport.export.checkpoint import read_checkpoint

    read = []
    corpus = SimpleNamespace(utterances=[SimpleNamespace(text="yes")])
    monkeypatch.setattr(speeches, "read_corpus", lambda path, rate_hz: read.append(path.name) or corpus)
    monkeypatch.setattr(speeches, "check_each_once", lambda corpus: None)
    monkeypatch.setattr(speeches, "check_disjoint", lambda one, other: None)
    spec = read_checkpoint(str(CHECKPOINT.with_name(f"{name}.nemo"))).spec
    found = choose_speech(spec, None, None)
    assert read == [f"eval{stem}.jsonl", f"calibration{stem}.jsonl"]
    assert "--corpus" in found.warnings[0] and "--calibration" in found.warnings[1]


@pytest.fixture
def manifests(tmp_path):
    """A few seconds for each use."""
    found = []
    for stem in ("eval", "calibration"):
        rows = [json.loads(line) for line in (ROOT / f"reference/audio/{stem}.jsonl").read_text().splitlines()[:2]]
        for row in rows:
            row["audio_filepath"] = str(ROOT / "reference" / "audio" / row["audio_filepath"])
        found.append(tmp_path / f"{stem}.jsonl")
        found[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


def test_speech_of_the_user(manifests):
    found = choose_speech(STREAMING, *manifests)
    assert (found.evaluation.path, found.calibration.path) == (*manifests,) and found.warnings == ()
    assert len(choose_speech(STREAMING, manifests[0], None).warnings) == 1


def test_speech_in_folders(manifests, tmp_path):
    """The same recordings as in manifests make the same corpora."""
    for manifest in manifests:
        folder = tmp_path / manifest.stem
        folder.mkdir()
        for number, row in enumerate(map(json.loads, manifest.read_text().splitlines())):
            shutil.copy(row["audio_filepath"], folder / f"{number}.flac")
            (folder / f"{number}.txt").write_text(row["text"] + "\n")
    found, expected = choose_speech(STREAMING, tmp_path / "eval", tmp_path / "calibration"), choose_speech(STREAMING, *manifests)
    assert (found.evaluation.digest, found.calibration.digest) == (expected.evaluation.digest, expected.calibration.digest)
    assert [u.id for u in found.evaluation.utterances] == ["0.flac", "1.flac"] and found.warnings == ()
    (tmp_path / "eval" / "0.txt").unlink()
    assert "1 recordings" in choose_speech(STREAMING, tmp_path / "eval", manifests[1]).warnings[0]
    (tmp_path / "eval" / "1.txt").unlink()
    with pytest.raises(CorpusError, match="no transcripts"):
        choose_speech(STREAMING, tmp_path / "eval", manifests[1])
    (tmp_path / "calibration" / "0.txt").unlink()  # where none is needed
    assert choose_speech(STREAMING, manifests[0], tmp_path / "calibration").warnings == ()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CorpusError, match="no audio in"):
        choose_speech(STREAMING, tmp_path / "nothing", manifests[1])


def test_without_a_clone_speech_must_be_given(manifests, tmp_path):
    for given, missing in (((None, manifests[1]), "--corpus"), ((manifests[0], None), "--calibration")):
        with pytest.raises(CorpusError, match=rf"no speech to work on[\s\S]*{missing}"):
            choose_speech(STREAMING, *given, clone=tmp_path / "nowhere")


def test_the_same_speech_twice_is_refused(manifests):
    with pytest.raises(CorpusError, match="overlap"):
        choose_speech(STREAMING, manifests[0], manifests[0])


@pytest.fixture
def wanted(manifests):
    return Wanted(*manifests, quick=True)


def test_a_plan(wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    plan = make_plan(str(CHECKPOINT), wanted=wanted)
    assert (plan.build, plan.packages) == (Path("build/streaming-en"), {"native": Path("dist/streaming-en")})
    assert [*plan.estimates] == ["oracle", "kv-fp32", "kv-int8-weight", "validate", "package"]
    assert plan.card == {"licence": "apache-2.0"}  # it is one of ours
    assert len(plan.notes) == 1 and "int8-static" in plan.notes[0] and "kv-int8-weight" not in plan.notes[0]
    assert sorted(tmp_path.iterdir()) == before


def test_packages_have_a_folder_each(wanted, tmp_path):
    wanted = replace(wanted, layouts=["native", "sherpa-onnx"], caches=["nemo"])
    plan = make_plan(str(CHECKPOINT), tmp_path / "b", tmp_path / "d" / "m", wanted)
    assert plan.packages == {"native": tmp_path / "d" / "m", "sherpa-onnx": tmp_path / "d" / "m-sherpa-onnx"}


def test_a_target_has_its_own_layout(wanted):
    plan = make_plan(str(CHECKPOINT), wanted=replace(wanted, quick=False, targets=["coreml"]))
    assert [*plan.packages] == ["coreml"]


def test_layouts_that_no_variant_fits(wanted):
    with pytest.raises(UsageError, match="No variant fits the layout sherpa-onnx"):  # it loads no kv caches
        make_plan(str(CHECKPOINT), wanted=replace(wanted, layouts=["sherpa-onnx"]))
    with pytest.raises(UsageError, match="Unknown layout"):
        make_plan(str(CHECKPOINT), wanted=replace(wanted, layouts=["zip"]))


def test_a_layout_whose_consumer_cannot_run_the_model_is_refused_before_anything_is_made(wanted):
    with pytest.raises(UsageError, match="the layout parakeet-rs cannot run this model") as error:
        make_plan(str(CHECKPOINT), wanted=replace(wanted, layouts=["genai", "parakeet-rs"], caches=["nemo"]))
    assert error.value.found == "states of 2 x 160, where it feeds 2 x 640"


@pytest.mark.parametrize(
    "card, packages",
    [
        ({}, 0),
        ({"licence": None}, 0),
        ({"licence": "apache-2.0"}, 1),
        ({"base_model": NVIDIA}, 1),
    ],
)
def test_without_a_licence_there_is_no_package(wanted, tmp_path, card, packages):
    shutil.copy(CHECKPOINT, tmp_path / "mine.nemo")  # it is not one of ours there
    plan = make_plan(str(tmp_path / "mine.nemo"), wanted=replace(wanted, card=card))
    assert len(plan.packages) == packages and any("--license" in note for note in plan.notes) == (not packages)


def test_a_licence_that_is_not_known_is_refused_at_once(wanted):
    with pytest.raises(UsageError, match="licence mine"):
        make_plan(str(CHECKPOINT), wanted=replace(wanted, card={"licence": "mine"}))


def test_estimates_grow_with_what_there_is_to_do(manifests):
    speech = tuple(read_corpus(manifest, 16000) for manifest in manifests)
    long = tuple(replace(corpus, utterances=corpus.utterances * 2) for corpus in speech)
    some, more = planned_variants(STREAMING, quick=True), planned_variants(STREAMING)
    one = total(estimates(STREAMING, 20_000_000, speech, some, 1))
    assert total(estimates(STREAMING, 20_000_000, long, some, 1)).seconds > one.seconds
    assert total(estimates(STREAMING, 20_000_000, speech, more, 1)).seconds > one.seconds
    assert total(estimates(STREAMING, 20_000_000, speech, more, 1)).disk > one.disk
    large = total(estimates(STREAMING, 2_400_000_000, speech, some, 1))
    assert large.seconds > 5 * one.seconds and large.memory > 100 * one.memory
    assert total(estimates(STREAMING, 20_000_000, speech, some, 2)).memory > one.memory


@pytest.mark.parametrize("cores, free, expected", [(8, 64e9, 3), (2, 64e9, 2), (8, 1e9, 1), (8, None, 3)])
def test_variants_judged_at_once(monkeypatch, cores, free, expected):
    monkeypatch.setattr(plans.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(plans, "free_memory", lambda: free and (free, 0))
    assert plans._jobs(200_000_000, 3) == expected
    assert plans._jobs(2_400_000_000, 3) == 1


class World:
    """The stages of a run, which only note that they were called; `failing` variants fail their gates."""

    def __init__(self, monkeypatch):
        self.did, self.failing, self.broken = [], {}, None
        monkeypatch.setattr(runs, "record_oracle", lambda checkpoint, corpus, build, progress: self.did.append("oracle"))
        monkeypatch.setattr(runs, "validate", self.validate)
        monkeypatch.setattr(runs, "package", self.package)
        monkeypatch.setattr(runs, "verify", lambda folder, progress: self.did.append(f"verify {folder.name}"))
        monkeypatch.setattr(
            "nemoport.pipeline.variants.PlannedVariant.build",
            lambda variant, checkpoint, build, calibration, progress: self.did.append(variant.name),
        )

    def validate(self, checkpoint, build, corpus, names, calibration, *, jobs, baseline, progress):
        assert isinstance(corpus, Corpus) and isinstance(calibration, Corpus)  # the plan's, which are not read again
        self.did.append("validate")
        return Verdict({name: self.failing.get(name, []) for name in names})

    def package(self, build, folder, *, layout, progress, **card):
        self.did.append(f"package {layout} {card}")
        if self.broken:
            folder.mkdir()
            raise self.broken
        write_package(folder, CHECKPOINT_SHA256, "new")


CHECKPOINT_SHA256 = "1" * 64


def write_package(folder, sha256, content):
    folder.mkdir(parents=True)
    (folder / "content").write_text(content)
    PackageManifest("m", "native", sha256, "", "apache-2.0", {"fp32": PackagedVariant("3" * 64, ())}, hash_files(folder)).write(
        folder
    )


def folders(place):
    return [path.name for path in place.iterdir() if path.is_dir()]


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def plan(wanted, tmp_path):
    made = make_plan(str(CHECKPOINT), tmp_path / "b", tmp_path / "d", wanted)
    return replace(made, checkpoint=replace(made.checkpoint, sha256=CHECKPOINT_SHA256))


def test_a_run_does_every_stage_in_order(world, plan, tmp_path):
    steps = []
    outcome = run_plan(plan, steps.append)
    card = "{'with_plot': True, 'licence': 'apache-2.0'}"
    assert world.did == ["oracle", "kv-fp32", "kv-int8-weight", "validate", f"package native {card}", "verify d"]
    assert outcome == Outcome(Verdict({"kv-fp32": [], "kv-int8-weight": []}), {"native": tmp_path / "d"}, {})
    assert outcome.passed
    done = [one.done for one in steps if isinstance(one, Step) and one.name == "all stages"]
    assert len(done) == 6 and done == sorted(done) and done[0] == 0 and done[-1] == pytest.approx(plan.total.seconds)


def test_packages_of_several_layouts_share_their_equal_files(world, plan, tmp_path, monkeypatch):
    linked = []
    monkeypatch.setattr(run, "link_equal", linked.append)
    monkeypatch.setattr(run, "shares_blocks", lambda folder: False)
    assert run_plan(plan, silent).passed and not linked
    packages = {"native": tmp_path / "d", "sherpa-onnx": tmp_path / "d-sherpa-onnx"}
    assert run_plan(replace(plan, packages=packages), silent).passed and linked == [[*packages.values()]]
    monkeypatch.setattr(run, "shares_blocks", lambda folder: True)
    assert run_plan(replace(plan, packages=packages), silent).passed and len(linked) == 1


def test_a_variant_that_fails_does_not_pass_the_run(world, plan):
    world.failing = {"kv-int8-weight": ["gate wer failed"]}
    outcome = run_plan(plan, silent)
    assert not outcome.passed and outcome.packages and outcome.verdict.lines() == ["kv-int8-weight: gate wer failed"]


def test_where_nothing_passed_there_is_no_package_and_the_earlier_one_stays(world, plan, tmp_path):
    write_package(tmp_path / "d", CHECKPOINT_SHA256, "old")
    world.broken = ArtifactError("x", found="fp32: gate wer failed")
    outcome = run_plan(plan, silent)
    assert outcome.unpackaged == {"native": "fp32: gate wer failed"} and not outcome.packages and not outcome.passed
    assert (tmp_path / "d" / "content").read_text() == "old" and folders(tmp_path) == ["d"]


def test_an_earlier_package_of_this_checkpoint_is_replaced(world, plan, tmp_path):
    write_package(tmp_path / "d", CHECKPOINT_SHA256, "old")
    assert run_plan(plan, silent).passed
    assert (tmp_path / "d" / "content").read_text() == "new" and folders(tmp_path) == ["d"]


def test_a_run_that_is_killed_while_it_replaces_leaves_the_earlier_package(world, plan, tmp_path, monkeypatch):
    write_package(tmp_path / "d", CHECKPOINT_SHA256, "old")
    if not (child := os.fork()):
        monkeypatch.setattr(runs, "verify", lambda folder, progress: os.kill(os.getpid(), signal.SIGKILL))
        run_plan(plan, silent)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "d" / "content").read_text() == "old" and len(folders(tmp_path)) == 2
    assert run_plan(plan, silent).passed
    assert (tmp_path / "d" / "content").read_text() == "new" and folders(tmp_path) == ["d"]


def another_checkpoint(folder):
    write_package(folder, "2" * 64, "old")


def changed(folder):
    write_package(folder, CHECKPOINT_SHA256, "old")
    (folder / "content").write_text("mine")


def no_package(folder):
    folder.mkdir()
    (folder / "content").write_text("mine")


@pytest.mark.parametrize("there", [another_checkpoint, changed, no_package], ids=lambda one: one.__name__)
def test_anything_else_is_never_replaced(world, plan, tmp_path, there):
    there(tmp_path / "d")
    content = (tmp_path / "d" / "content").read_text()
    with pytest.raises(OutputError):
        run_plan(plan, silent)
    assert (tmp_path / "d" / "content").read_text() == content


def test_what_cannot_be_replaced_is_refused_before_the_run(world, manifests, tmp_path, capsys):
    (tmp_path / "d").mkdir()
    arguments = ["run", "--quick", str(CHECKPOINT), "--build", str(tmp_path / "b"), "--dist", str(tmp_path / "d")]
    assert main([*arguments, "--corpus", str(manifests[0]), "--calibration", str(manifests[1])]) == 2
    assert "exists already" in capsys.readouterr().err and world.did == []


def command(manifests, tmp_path, *more):
    places = ["--build", str(tmp_path / "b"), "--dist", str(tmp_path / "d d")]
    return ["run", "--quick", str(CHECKPOINT), *places, "--corpus", str(manifests[0]), "--calibration", str(manifests[1]), *more]


def test_a_dry_run_prints_the_plan_and_does_nothing(world, manifests, tmp_path, capsys):
    assert main(command(manifests, tmp_path, "--dry-run")) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == f"{CHECKPOINT}: streaming-rnnt, 21 MB" and "2 recordings" in lines[1] and "calibration" in lines[2]
    stages = ["oracle", "kv-fp32", "kv-int8-weight", "validate", "package", "all"]
    assert [line.split()[0] for line in lines[5:11]] == stages and all(len(line) <= 80 for line in lines[4:11])
    assert shown.err == "" and world.did == [] and not (tmp_path / "b").exists()
    assert main(command(manifests, tmp_path, "--dry-run", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [*found["stages"]] == stages[:-1] and found["built"] == [] and world.did == []


def test_the_end_of_a_run(world, manifests, tmp_path, capsys):
    assert main(command(manifests, tmp_path)) == 0
    shown = capsys.readouterr()
    assert f"Package: {tmp_path / 'd d'}\n" in shown.out
    assert shown.out.endswith(f"Next:    nemoport transcribe '{tmp_path / 'd d'}' YOUR.wav\n")
    assert "oracle" in shown.err  # the plan
    shutil.rmtree(tmp_path / "d d")
    world.failing = {"kv-fp32": ["gate wer failed"]}
    assert main(command(manifests, tmp_path, "--json", "--quiet")) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert shown.err == "" and not found["passed"] and found["variants"]["kv-fp32"]["problems"] == ["gate wer failed"]
    assert found["packages"] == {"native": str(tmp_path / "d d")}


@pytest.mark.slow
def test_a_real_run_is_resumed(manifests, tmp_path, capsys):
    """On two recordings, where too little is judged for a pass: what was done is not done again."""
    assert main(command(manifests, tmp_path)) == 1
    built = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").rglob("*.onnx*")}
    shown = capsys.readouterr()
    assert "batch" in shown.out and "oracle: restoring" in shown.err and built
    assert main(command(manifests, tmp_path)) == 1
    assert "streaming, lookahead" not in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in built} == built
