"""A gate result and its files, value by value: what is written, what is read again, what is refused."""

import json
from dataclasses import asdict, fields, replace

import pytest

from nemoport.artifact import FileEntry, Manifest, Recipe
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, sha256_file
from nemoport.validate.gate_result import SHARED_FILES, GateResult, artifact_sha256, within
from nemoport.validate.result_store import describe, read_results, results_path, write_results
from nemoport.validate.stamps import Evaluation, read_evaluation, write_evaluation

SHORT = GateResult("wer", "fp32", "0" * 64, "pass")
WHOLE = GateResult(
    "wer", "fp32", "0" * 64, "fail", "all", 1.5, 1.0, "points", 7, (-0.5, 2.0), "why", "1" * 64, "2" * 64, "3" * 64
)


def test_what_is_not_stated_of_a_result():
    assert asdict(SHORT) == {
        "gate": "wer", "variant": "fp32", "sha256": "0" * 64, "status": "pass", "case": "", "measured": None, "limit": None,
        "unit": "", "n": 0, "interval": None, "evidence": "", "limits_sha256": "", "oracle_digest": "", "judge_digest": "",
    }  # fmt: skip
    assert (SHORT.passed, WHOLE.passed) == (True, False)
    assert SHORT.to_dict() == asdict(SHORT)


def test_results_are_read_as_they_were_written(tmp_path):
    path = results_path(tmp_path, "fp32")
    assert path == tmp_path / "results" / "fp32.jsonl"
    assert read_results(path) == []
    odd = replace(WHOLE, measured=float("inf"), limit=None, interval=(float("-inf"), float("inf")), evidence="\u2028 \u00e9\n")
    write_results(path, [SHORT, WHOLE, odd])
    assert read_results(path) == [SHORT, WHOLE, odd]
    assert path.read_text(encoding="utf-8").count("\n") == 3
    path.write_text("\n" + path.read_text() + "\n\n")
    assert read_results(path) == [SHORT, WHOLE, odd]
    path.write_text(json.dumps(asdict(SHORT)))
    assert read_results(path) == [SHORT]


WRONG = {
    "gate": [None, 1], "variant": [None], "sha256": [None], "status": ["passed", "", None, "xpass", "pass "], "case": [None, 1],
    "measured": ["1", True], "limit": ["1"], "unit": [None], "n": [-1, 1.5, "1", None, 10**12 + 1],
    "interval": [[1.0], [1.0, "2"], 1], "evidence": [None],
    "limits_sha256": [None], "oracle_digest": [None], "judge_digest": [None], "other": [1],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_value_that_no_result_has_is_refused(tmp_path, key, value):
    assert set(WRONG) == {field.name for field in fields(GateResult)} | {"other"}
    path = tmp_path / "fp32.jsonl"
    path.write_text(json.dumps(asdict(WHOLE) | {key: value}) + "\n")
    with pytest.raises(ArtifactError, match=rf"(?s)fp32.jsonl holds values.*{key}.*remove it and validate again"):
        read_results(path)


@pytest.mark.parametrize("text", ["{", "nul", "[" * 100_000, "\xff"])
def test_what_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "fp32.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"(?s)fp32.jsonl cannot be read.*remove it and validate again"):
        read_results(path)


def test_the_bounds_of_a_count(tmp_path):
    for n in (0, 10**12):
        write_results(tmp_path / "a", [replace(WHOLE, n=n)])
        assert read_results(tmp_path / "a")[0].n == n


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (WHOLE, "all: 1.5 points, limit 1: why"),
        (replace(WHOLE, case="", limit=None), "1.5 points: why"),
        (replace(WHOLE, measured=0.123456789, limit=1e-7, evidence=""), "all: 0.123457 points, limit 1e-07"),
        (SHORT, ""),
        (replace(SHORT, limit=2.0), ", limit 2"),
    ],
)
def test_a_result_in_a_line(result, text):
    assert describe(result) == text


@pytest.mark.parametrize("at_least", [False, True])
@pytest.mark.parametrize(("n", "passes"), [(-1, False), (0, False), (1, True), (2, True)])
def test_a_figure_of_nothing_fails(n, passes, at_least):
    assert (within(1.0, 1.0, at_least=at_least, n=n) == "pass") is passes
    assert (within(1.0, None, at_least=at_least, n=n) == "pass") is passes
    assert within(float("nan"), None, at_least=at_least, n=n) == within(float("inf"), 1.0, at_least=True, n=n) == "fail"


def test_the_digest_of_an_artifact_is_of_its_files_and_of_the_shared_ones(tmp_path):
    folder = tmp_path / "fp32"
    names = ["b.onnx", "a.onnx"]
    for path in [folder / name for name in names] + [tmp_path / name for name in SHARED_FILES]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (folder / "unlisted").write_text("")
    entries = {name: FileEntry(name, 6, sha256_file(folder / name)) for name in names}
    recipe = Recipe("fp32", None)
    Manifest("fp32", recipe, recipe.digest, "0" * 64, None, None, {}, "", entries).write(folder)
    own = {name: sha256_file(folder / name) for name in names}
    shared = {name: sha256_file(tmp_path / name) for name in SHARED_FILES}
    assert SHARED_FILES == ("config.json", "shared/filterbank.bin", "shared/tokens.txt", "shared/languages.json")
    assert artifact_sha256(folder) == digest_json({**own, **shared})
    (tmp_path / "shared" / "languages.json").unlink()
    (folder / "a.onnx").unlink()
    assert artifact_sha256(folder) == digest_json({**own, **shared, "shared/languages.json": "missing", "a.onnx": "missing"})
    (folder / "a.onnx").mkdir()
    assert artifact_sha256(folder) == digest_json({**own, **shared, "shared/languages.json": "missing", "a.onnx": "missing"})


def test_an_evaluation_is_noted_and_read(tmp_path):
    write_evaluation(tmp_path, "0" * 64, {"fp32": "cpu"})
    write_evaluation(tmp_path, "1" * 64, {"fp16": "cuda", "int8": "cpu"})
    write_evaluation(tmp_path, "1" * 64, {"fp16": "cpu"})
    expected = {"oracle_digest": "1" * 64, "providers": {"fp32": "cpu", "fp16": "cpu", "int8": "cpu"}}
    path = tmp_path / "results" / "evaluation.json"
    assert json.loads(path.read_text()) == expected
    assert read_evaluation(tmp_path) == Evaluation(**expected)
    with pytest.raises(ArtifactError, match=r"(?s)b/results/evaluation.json is missing.*validate again"):
        read_evaluation(tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [("oracle_digest", "0" * 63), ("oracle_digest", None), ("providers", {"a b": "cpu"}), ("providers", {"fp32": 1})]
    + [("providers", {"fp32": "c\x00pu"}), ("providers", None), ("more", 1)],
)
def test_an_evaluation_that_none_wrote_is_refused(tmp_path, key, value):
    write_evaluation(tmp_path, "0" * 64, {"fp32": "cpu"})
    path = tmp_path / "results" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ArtifactError, match=rf"(?s)evaluation.json holds values.*{key}.*validate again"):
        read_evaluation(tmp_path)
    write_evaluation(tmp_path, "1" * 64, {"int8": "cpu"})
    assert read_evaluation(tmp_path) == Evaluation("1" * 64, {"int8": "cpu"})
