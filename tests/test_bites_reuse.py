"""Change one thing, and an artifact is judged, calibrated or refused again; overlap of audio shows in its samples alone."""

import ast
import json
from dataclasses import fields, replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

import nemoport
from nemoport.artifact import Artifact, FileEntry, Manifest, Recipe
from nemoport.calibration.audio import check_calibration
from nemoport.calibration.cache import calibrate
from nemoport.calibration.gram import GramCollector
from nemoport.calibration.ranges import RangeCollector
from nemoport.calibration.samples import SampleCollector
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import CorpusError, OutputError
from nemoport.files import sha256_file
from nemoport.speech.corpus import Corpus, Utterance, check_disjoint, check_each_once, read_corpus
from nemoport.validate import context, limits, nemo, nemo_config, nemo_runs, oracle, result_store, run, stamps
from nemoport.validate.context import Context
from nemoport.validate.gate_result import STAMPS
from nemoport.validate.gates import boundary
from nemoport.validate.oracle import Oracle, oracle_digest
from nemoport.validate.result_store import read_results, required_passes, results_path, write_results
from nemoport.validate.stamps import Evaluation, read_evaluation, write_evaluation
from nemoport.variant import GRAPH_ROLES, Variant

RATE = 16000
UTTERANCE = Utterance("a", Path("a.wav"), "yes", 30.0, "0" * 64, RATE)
CORPUS = Corpus(Path("corpus.jsonl"), (UTTERANCE, replace(UTTERANCE, id="b", sha256="1" * 64)))
OTHER_UTTERANCE = {"sha256": "2" * 64, "text": "no", "language": "de", "prompt_language": "de"}
PACKAGE = Path(nemoport.__file__).parent
SHARED_FILES = ("config.json", "shared/filterbank.bin", "shared/tokens.txt", "shared/languages.json")  # what runtimes load


def with_other(corpus, **changes):
    """The corpus with another last utterance."""
    *before, last = corpus.utterances
    return replace(corpus, utterances=(*before, replace(last, **changes)))


hashed_once = cache(sha256_file)  # of code, which no test here changes


class World:
    """What a result depends on, without a model. gates.toml is a copy, and its gate `boundary` counts how often it is run."""

    def __init__(self, folder, checkpoint, monkeypatch):
        self.build, self.checkpoint, self.monkeypatch = folder / "build", checkpoint, monkeypatch
        self.corpus, self.variant, self.provider, self.target = CORPUS, "fp32", "cpu", "onnxruntime"
        self.passes, self.runs = [True, True], 0
        for variant in ("fp32", "fp16"):
            made = Variant(self.build, Recipe(variant, None), checkpoint.sha256)
            made.folder.mkdir(parents=True)
            for name in GRAPH_ROLES.values():
                (made.folder / name).write_text(name)
            made.write_manifest(made.folder)
        for name in SHARED_FILES:
            (self.build / name).parent.mkdir(exist_ok=True)
            (self.build / name).write_text(name)
        self.limits_file = folder / "gates.toml"
        self.limits_file.write_bytes(limits.LIMITS_FILE.read_bytes())
        monkeypatch.setattr(limits.limits_digest, "__defaults__", (self.limits_file,))
        monkeypatch.setattr(stamps, "sha256_file", hashed_once)
        monkeypatch.setattr(boundary, "run", self.gate)

        def only_boundary(variant):
            return replace(limits.limits_of(variant), required=("boundary",))

        monkeypatch.setattr(result_store, "limits_of", only_boundary)

    def gate(self, context):
        self.runs += 1
        shares = [1.0 if passed else 0.0 for passed in self.passes]
        figure = {"limit": "min_share", "unit": "", "n": 1, "at_least": True}
        return [context.judge("boundary", f"figure {i}", share, **figure) for i, share in enumerate(shares)]

    def evaluate(self):
        """Returns NeMo's runs, noted as those that the build is judged on from now on."""
        found = Oracle(oracle_digest(self.checkpoint, self.corpus), Path(), {})
        write_evaluation(self.build, found.digest, {self.variant: self.provider})
        return found

    def judge(self):
        """Judges, and returns how often the gate was run for it."""
        before, found = self.runs, self.evaluate()
        one = replace(limits.limits_of(self.variant), target=self.target)
        context = Context(self.build / self.variant, one, self.checkpoint, self.corpus, found, self.provider)
        results = run.judge(context, results_path(self.build, "fp32"), ["boundary"])
        assert [r.case for r in results] == ["figure 0", "figure 1"]
        return self.runs - before

    def edit(self, path):
        path.write_text(path.read_text() + "\n")

    def other_code(self, module, path):
        """As if a file that `module` hashes were another one."""
        hashed = module.sha256_file
        self.monkeypatch.setattr(module, "sha256_file", lambda file: "other" if Path(file) == path else hashed(file))

    def other_version(self, module, package):
        known = module.version
        self.monkeypatch.setattr(module, "version", lambda name: "0" if name == package else known(name))

    def profile(self):
        spec = self.checkpoint.spec
        self.checkpoint = replace(self.checkpoint, spec=replace(spec, streaming=replace(spec.streaming, attention_lookahead=6)))


@pytest.fixture
def world(tmp_path, reference_checkpoint, monkeypatch):
    return World(tmp_path, reference_checkpoint, monkeypatch)


FILES = {f"artifact: {name}": (lambda w, name=name: w.edit(w.build / "fp32" / name)) for name in GRAPH_ROLES.values()}
FILES |= {f"artifact: {name}": (lambda w, name=name: w.edit(w.build / name)) for name in SHARED_FILES}
FILES |= {f"artifact without {name}": (lambda w, name=name: (w.build / name).unlink()) for name in SHARED_FILES}
FILES["gates.toml"] = lambda w: w.edit(w.limits_file)
INPUTS = {
    "variant": lambda w: setattr(w, "variant", "fp16"),
    "checkpoint": lambda w: setattr(w, "checkpoint", replace(w.checkpoint, sha256="0" * 64)),
    "profile": World.profile,
    **{
        f"corpus: {key}": (lambda w, key=key, value=value: setattr(w, "corpus", with_other(w.corpus, **{key: value})))
        for key, value in OTHER_UTTERANCE.items()
    },
    "corpus: one less": lambda w: setattr(w, "corpus", replace(CORPUS, utterances=CORPUS.utterances[:1])),
    "corpus: order": lambda w: setattr(w, "corpus", replace(CORPUS, utterances=CORPUS.utterances[::-1])),
    **{
        f"code of NeMo's runs: {module.__name__}": (lambda w, path=Path(module.__file__): w.other_code(oracle, path))
        for module in (oracle, nemo, nemo_config, nemo_runs)
    },
    **{package: (lambda w, package=package: w.other_version(oracle, package)) for package in ("nemo_toolkit", "torch")},
    "jiwer": lambda w: w.other_version(stamps, "jiwer"),
    "provider": lambda w: setattr(w, "provider", "cuda"),
    "runtime": lambda w: setattr(w, "target", "openvino"),
    "runtime's version": lambda w: w.monkeypatch.setattr(stamps, "runtime_version", lambda target: "0"),
}


def test_what_is_unchanged_is_not_judged_again(world):
    assert [world.judge(), world.judge()] == [1, 0]
    assert required_passes(world.build, "fp32") == []
    world.corpus = with_other(CORPUS, id="renamed", path=Path("renamed.wav"))
    world.edit(world.build / "results" / "fp32.jsonl")  # a line without a result
    assert world.judge() == 0


@pytest.mark.parametrize("change", FILES | INPUTS)
def test_change_this_and_it_is_judged_again(world, change):
    assert [world.judge(), world.judge()] == [1, 0]
    (FILES | INPUTS)[change](world)
    assert [world.judge(), world.judge()] == [1, 0]


OTHER_VARIANT = ("variant", "runtime")  # results of these are no results of fp32, in onnxruntime


def named(change):
    """What packaging names as changed."""
    if change in FILES:
        return "limits" if change == "gates.toml" else "files"
    return "code or runtime" if change in ("jiwer", "provider", "runtime's version") else "evaluation audio or checkpoint"


@pytest.mark.parametrize("change", [one for one in FILES | INPUTS if one not in OTHER_VARIANT])
def test_change_this_and_it_is_not_packaged_before_it_is_judged_again(world, change):
    world.judge()
    (FILES | INPUTS)[change](world)
    world.evaluate()  # as for another variant, which is judged first
    problem = f"gate boundary passed with other {named(change)} than now: validate again"
    assert required_passes(world.build, "fp32") == [problem]
    world.judge()
    assert required_passes(world.build, "fp32") == []


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("at", [0, 1])
def test_one_old_figure_of_two_keeps_a_gate_from_packaging(world, stamp, at):
    world.judge()
    path = results_path(world.build, "fp32")
    results = read_results(path)
    results[at] = replace(results[at], **{stamp: "0" * 64})
    write_results(path, results)
    named = {"sha256": "files", "limits_sha256": "limits", "oracle_digest": "evaluation audio or checkpoint"}
    named |= {"variant": "variant", "judge_digest": "code or runtime"}
    problem = f"gate boundary passed with other {named[stamp]} than now: validate again"
    assert required_passes(world.build, "fp32") == [problem]


@pytest.mark.parametrize("path", [stamps.__file__, boundary.__file__, PACKAGE / "decode.py", PACKAGE / "heads" / "rnnt.py"])
def test_a_pass_of_older_judging_code_is_not_packaged(world, path):
    world.judge()
    world.other_code(stamps, Path(path))
    assert required_passes(world.build, "fp32") == ["gate boundary passed with other code or runtime than now: validate again"]


@pytest.mark.parametrize("content", [None, "", "{}", '{"oracle_digest": "0", "providers": {}}', '{"oracle_digest": 1}', "[]"])
def test_without_a_readable_evaluation_nothing_is_packaged_before_it_is_judged_again(world, content):
    world.judge()
    path = world.build / "results" / "evaluation.json"
    path.unlink() if content is None else path.write_text(content)
    (problem,) = required_passes(world.build, "fp32")
    assert problem.startswith(f"{path} ") and problem.endswith(" do: validate again") and "XX" not in problem
    assert content is not None or problem == f"{path} is missing. expected: a JSON object found: no file do: validate again"
    assert world.judge() == 0
    assert required_passes(world.build, "fp32") == []


def test_a_variant_that_is_not_of_the_evaluation_is_not_packaged(world):
    world.judge()
    found = read_evaluation(world.build)
    (world.build / "results" / "evaluation.json").unlink()
    write_evaluation(world.build, found.oracle_digest, {"fp16": "cpu"})
    assert "other code or runtime" in required_passes(world.build, "fp32")[0]
    write_evaluation(world.build, found.oracle_digest, {"fp32": "cpu"})
    assert read_evaluation(world.build) == Evaluation(found.oracle_digest, {"fp16": "cpu", "fp32": "cpu"})
    assert required_passes(world.build, "fp32") == []


def test_where_a_package_that_judged_is_not_installed_nothing_is_packaged(world):
    def absent(name):
        raise PackageNotFoundError(name)

    world.judge()
    world.monkeypatch.setattr(stamps, "version", absent)
    (problem,) = required_passes(world.build, "fp32")
    assert problem.endswith("cannot be known without the package jiwer")


@pytest.mark.parametrize("stamp", STAMPS)
def test_a_gate_is_judged_again_for_one_figure_with_another_stamp(world, stamp):
    world.judge()
    path = results_path(world.build, "fp32")
    first, second = read_results(path)
    for other in ([first, replace(second, **{stamp: "fp16"})], [replace(first, **{stamp: "fp16"}), second]):
        write_results(path, other)
        assert world.judge() == 1


@pytest.mark.parametrize("passes", [[True, False], [False, True]])
def test_a_gate_with_one_failed_figure_is_judged_again_and_not_packaged(world, passes):
    world.passes = passes
    assert [world.judge(), world.judge()] == [1, 1]
    assert "gate boundary failed: figure" in required_passes(world.build, "fp32")[0]


def test_a_gate_that_was_not_run_is_not_passed(world):
    world.judge()
    path = results_path(world.build, "fp32")
    write_results(path, [replace(result, gate="wer") for result in read_results(path)])
    assert required_passes(world.build, "fp32") == ["gate boundary was not run"]


# What the runs' code imports and what cannot change a figure.
HARMLESS = {
    "artifact": "opens files; the gate `contract` compares them with their hashes",
    "beam": "the gates decode greedily",
    "beam_hypotheses": "as beam",
    "ctc_beam": "as beam",
    "config": "config.json is read, and the gate `contract` compares it with the checkpoint",
    "errors": "texts",
    "external_data": "refuses files",
    "files": "reads and writes files",
    "hotwords": "as beam",
    "language_model": "as beam",
    "partial": "removes what killed runs left",
    "progress": "texts",
    "schema": "refuses files",
    "text": "texts",
    "variant": "builds artifacts, which have hashes of their own",
}


def imported(path):
    """Modules of nemoport/ itself that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nemoport":
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
            yield from (name.split(".")[1] for name in names if "." in name)


def code_of_the_runs():
    """Modules of nemoport/ itself that CorpusRunner needs, with all that they import."""
    folder = Path(context.__file__).parent
    found, waiting = set(), [folder / "runs.py", folder / "context.py", folder / "flush_pair.py"]
    waiting += [file for name in stamps.RUN_FOLDERS for file in (PACKAGE / name).rglob("*.py")]
    while waiting:
        new = {name for name in imported(waiting.pop()) if (PACKAGE / f"{name}.py").is_file()} - found
        found |= new
        waiting += [PACKAGE / f"{name}.py" for name in new]
    return found


def test_the_judges_digest_is_of_all_code_that_can_change_a_figure():
    assert code_of_the_runs() - set(stamps.RUN_MODULES) == set(HARMLESS)


JUDGES = sorted(
    code_of_the_runs() - set(HARMLESS) | {"runtimes/onnxruntime/session", "heads/tdt", "speech/conditions", "apple/session"}
)
JUDGES = [PACKAGE / f"{name}.py" for name in (*JUDGES, "score")]
JUDGES += [Path(context.__file__).parent / name for name in ("finite.py", "gates/wer.py", "gate_result.py")]


@pytest.mark.parametrize("path", JUDGES, ids=lambda path: path.name)
def test_other_code_judges_again(world, path):
    assert world.judge() == 1
    world.other_code(stamps, path)
    assert [world.judge(), world.judge()] == [1, 0]


def test_another_page_judges_nothing_again(world):
    """It shows results: no module that judges may need one of its modules."""
    assert world.judge() == 1
    for path in stamps.PAGE.glob("*.py"):
        world.other_code(stamps, path)
    assert world.judge() == 0
    for path in (*stamps.PAGE.parent.glob("*.py"), *stamps.PAGE.parent.glob("gates/*.py")):
        assert path.name == "run.py" or "validate.page" not in path.read_text(), path


OTHER_PARAMETERS = {
    "contexts_per_stream": 2.0,
    "silence_contexts": 0.5,
    "noise_rms": 0.0,
    "telephone": False,
    "min_cache_fill": 0.5,
    "cold": True,
}


def calibrated(folder, checkpoint, corpus=CORPUS, parent="0" * 64, collect=RangeCollector, tensors=("a",), **parameters):
    """The folder of a calibration with all streams left out."""
    streams = CalibrationStreams(corpus, checkpoint.spec, np.zeros(0), StreamParameters(**parameters))
    streams.plans = ()

    class Named(collect):
        def summary(self):
            return {}

    recipe = Recipe("fp32", None)
    manifest = Manifest("fp32", recipe, recipe.digest, parent, None, None, {}, "", {"a": FileEntry("a", 1, "0" * 64)})
    artifact = Artifact(folder / "fp32", manifest, checkpoint.spec)
    return calibrate(artifact, streams, list(tensors), folder, progress=lambda line: None, collect=Named).folder


def test_every_parameter_of_the_streams_is_changed_here():
    assert set(OTHER_PARAMETERS) == {one.name for one in fields(StreamParameters)}
    assert all(value != getattr(StreamParameters(), name) for name, value in OTHER_PARAMETERS.items())


@pytest.mark.parametrize(
    "change",
    [{name: value} for name, value in OTHER_PARAMETERS.items()]
    + [
        pytest.param({"corpus": with_other(CORPUS, **{key: value})}, id=f"corpus: {key}")
        for key, value in OTHER_UTTERANCE.items()
    ]
    + [pytest.param({"parent": "1" * 64}, id="parent"), {"tensors": ("b",)}, {"tensors": ("a", "b")}]
    + [pytest.param({"collect": one}, id=one.__name__) for one in (GramCollector, SampleCollector)],
    ids=str,
)
def test_change_this_and_it_is_calibrated_again(tmp_path, reference_checkpoint, change):
    first = calibrated(tmp_path, reference_checkpoint)
    assert calibrated(tmp_path, reference_checkpoint, with_other(CORPUS, id="renamed", path=Path("c.wav"))) == first
    assert calibrated(tmp_path, reference_checkpoint, **change) != first


BUILT = {"checkpoint_sha256": "0" * 64, "parent_digest": "1" * 64, "corpus_digest": "2" * 64}
RECIPE = Recipe("int8", "fp32", {"percentile": 99.9, "telephone": True})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": replace(RECIPE, parameters={"percentile": 99.99, "telephone": True})}, "recipe"),
        ({"recipe": replace(RECIPE, parameters={"percentile": 99.9})}, "recipe"),
        ({"recipe": replace(RECIPE, parent="fp16")}, "recipe"),
        ({"checkpoint_sha256": "3" * 64}, "checkpoint"),
        ({"parent_digest": "3" * 64}, "parent"),
        ({"parent_digest": None}, "parent"),
        ({"corpus_digest": "3" * 64}, "calibration audio"),
        ({"corpus_digest": None}, "calibration audio"),
    ],
    ids=str,
)
def test_change_this_and_what_was_built_is_refused(tmp_path, change, named):
    made = Variant(tmp_path, RECIPE, **BUILT)
    made.folder.mkdir()
    (made.folder / "a").write_text("a")
    made.write_manifest(made.folder, {"encoder": "a"})
    assert made.is_built()
    with pytest.raises(OutputError, match=f"made from another {named}\n"):
        replace(made, **change).is_built()


def test_a_manifests_digest_is_of_all_but_tools_and_machine():
    entries = {"encoder": FileEntry("a", 1, "4" * 64)}
    one = Manifest("int8", RECIPE, RECIPE.digest, **BUILT, tools={}, machine="x86", files=entries)
    others = {field.name: "other" for field in fields(Manifest)}
    others |= {"recipe": replace(RECIPE, parent=None), "files": {"encoder": FileEntry("a", 1, "5" * 64)}}
    changed = {name for name, value in others.items() if replace(one, **{name: value}).digest != one.digest}
    assert changed == set(others) - {"tools", "machine"}
    for entry in (FileEntry("b", 1, "4" * 64), FileEntry("a", 2, "4" * 64)):
        assert replace(one, files={"encoder": entry}).digest != one.digest


def manifest_of(folder, recordings, extra=None):
    """A corpus of recordings that are written down here: file name -> samples."""
    import soundfile

    folder.mkdir()
    for name, samples in recordings.items():
        whole = np.round(32768 * samples).astype(np.int16)  # of floats each format would make its own integers
        soundfile.write(folder / name, whole, RATE, subtype="PCM_16")
    rows = [{"audio_filepath": name, "text": "", **(extra or {})} for name in recordings]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_corpus(folder / "manifest.jsonl", RATE)


def noise(seed, level=0.1):
    return level * np.random.default_rng(seed).uniform(-1, 1, 400)


@pytest.mark.parametrize("name", ["renamed.wav", "other.flac"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_renamed_copy_of_calibration_audio_is_not_evaluated_on(tmp_path, name, at):
    calibration = manifest_of(tmp_path / "calibration", {"a.wav": noise(0), "b.wav": noise(1)})
    copy = {name: noise(at), "new.wav": noise(2)}
    evaluation = manifest_of(tmp_path / "evaluation", copy, {"text": "other", "lang": "de"})
    with pytest.raises(CorpusError, match=f"1 in both, such as {'ab'[at]}.wav = {name}"):
        check_disjoint(calibration, evaluation)
    reordered = manifest_of(tmp_path / "reordered", dict(reversed(copy.items())))
    with pytest.raises(CorpusError, match="1 in both"):
        check_disjoint(calibration, reordered)


def test_other_audio_of_the_same_name_is_evaluated_on(tmp_path):
    calibration = manifest_of(tmp_path / "calibration", {"a.wav": noise(0)})
    check_disjoint(calibration, manifest_of(tmp_path / "evaluation", {"a.wav": noise(1)}))


def test_a_renamed_recording_counts_once(tmp_path):
    twice = manifest_of(tmp_path / "twice", {"a.wav": noise(0), "b.wav": noise(1), "c.flac": noise(0)})
    with pytest.raises(CorpusError, match="1 again, such as a.wav = c.flac"):
        check_each_once(twice)
    check_each_once(replace(twice, utterances=twice.utterances[:2]))


@pytest.mark.parametrize("spoken", [0, 1, 2])
def test_one_recording_with_speech_is_enough_to_calibrate(tmp_path, spoken):
    corpus = manifest_of(tmp_path / "a", {f"{i}.wav": noise(i, 0.1 if i == spoken else 1e-4) for i in range(3)})
    check_calibration(corpus)
    silent = replace(corpus, utterances=tuple(u for i, u in enumerate(corpus.utterances) if i != spoken))
    with pytest.raises(CorpusError, match="in any of 2 recordings"):
        check_calibration(silent)


@pytest.mark.parametrize(("level", "silent"), [(0.0009, True), (0.0011, False), (-0.0011, False)])
def test_the_loudest_sample_says_what_is_silent(tmp_path, level, silent):
    samples = np.zeros(400)
    samples[-1] = level
    corpus = manifest_of(tmp_path / "a", {"a.wav": samples})
    if silent:
        with pytest.raises(CorpusError, match="nothing above 0.001"):
            check_calibration(corpus)
    else:
        check_calibration(corpus)
