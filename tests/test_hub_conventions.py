"""What the Hub reads of a package, by huggingface_hub's own functions: head of the card, results on a benchmark, tokens of CI."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from test_package import FakeApi, make, write_results

from nemoport.artifact import Artifact
from nemoport.cli import main
from nemoport.errors import UsageError
from nemoport.package import plots
from nemoport.package.card import card
from nemoport.package.card_data import Figures
from nemoport.package.eval_results import Benchmark, eval_results
from nemoport.package.hub import publish
from nemoport.package.layout import CardFacts
from nemoport.package.layouts import layouts, load_layout
from nemoport.package.manifest import PackageManifest
from nemoport.package.terms import resolve_terms
from nemoport.package.verify import verify

hub = pytest.importorskip("huggingface_hub")
ASR = Benchmark("hf-audio/open-asr", "librispeech_clean")


@pytest.fixture(scope="module")
def judged(build, tmp_path_factory):
    """The build with results."""
    copy = shutil.copytree(build, tmp_path_factory.mktemp("judged") / "build")
    write_results(copy, "fp32")
    return copy


@pytest.fixture(scope="module")
def facts(judged):
    artifact = Artifact.open(judged / "fp32")
    terms = resolve_terms("", licence="apache-2.0", base_model="org/model", language="en")
    figures = {"fp32": Figures.read(judged, "fp32")}
    return CardFacts("name", "0" * 64, terms, artifact.config(), {"fp32": artifact}, figures, load_layout("native"))


# The card


@pytest.mark.parametrize(
    "layout, library, tags",
    [
        ("native", "onnx", {"onnx", "onnxruntime"}),
        ("sherpa-onnx", "onnx", {"onnx", "sherpa-onnx"}),
        ("onnx-asr", "onnx", {"onnx", "onnx-asr"}),
    ],
)
def test_the_hub_reads_the_head_of_each_layout(facts, layout, library, tags):
    config = load_layout(layout).config_for(facts.config) if layout == "sherpa-onnx" else facts.config
    read = hub.ModelCard(card(replace(facts, layout=load_layout(layout), config=config))).data
    assert (read.base_model, read.to_dict()["base_model_relation"]) == ("org/model", "quantized")
    assert (read.library_name, read.pipeline_tag, read.license) == (library, "automatic-speech-recognition", "apache-2.0")
    assert tags <= set(read.tags) and len(set(read.tags)) == len(read.tags)


def test_downloads_count_in_every_layout():
    """The Hub counts requests for config.json of a library that has no rule of its own."""
    for name in layouts():
        layout = load_layout(name)
        assert any(path.startswith("config.json") for path in layout.files) or layout.library, name


# Results on a benchmark


def test_results_are_what_the_hub_reads(judged, tmp_path):
    package = make(judged, tmp_path / "dist", benchmark=replace(ASR, revision="abc"))
    raw = yaml.safe_load((package / ".eval_results" / "open-asr.yaml").read_text())
    (entry,) = hub.parse_eval_result_entries(raw)
    wanted = {"id": ASR.dataset, "task_id": ASR.task, "revision": "abc"}
    assert len(raw) == 1 and raw[0]["dataset"] == wanted and raw[0]["value"] == 17.17 + 13  # of the largest lookahead
    assert raw[0]["notes"].startswith("fp32, lookahead 13, 160 utterances")
    assert hub.eval_result_entries_to_yaml([entry]) == raw
    assert ".eval_results/open-asr.yaml" in {file.path for file in PackageManifest.read(package).files}
    assert verify(package) and "`.eval_results/open-asr.yaml`" in (package / "README.md").read_text()
    api = FakeApi()
    publish(package, "someone/model", token="hf_x", api=api)
    assert ".eval_results/open-asr.yaml" in api.calls[-1][2]["allow_patterns"]


def test_without_a_benchmark_there_are_none(judged, tmp_path):
    assert not (make(judged, tmp_path / "dist") / ".eval_results").exists()


def test_other_figures_are_other_results(facts):
    changed = [replace(r, measured=5.25) if r.case == "lookahead 13: WER" else r for r in facts.figures["fp32"].results]
    assert yaml.safe_load(eval_results(ASR, replace(facts, figures={"fp32": Figures(tuple(changed))})))[0]["value"] == 5.25


@pytest.mark.parametrize("figure", [None, float("nan")])
def test_what_was_not_measured_is_no_result(facts, figure):
    changed = [replace(r, measured=figure) for r in facts.figures["fp32"].results]
    with pytest.raises(UsageError, match="no word error rate"):
        eval_results(ASR, replace(facts, figures={"fp32": Figures(tuple(changed))}))


@pytest.mark.parametrize(
    "dataset, task",
    [("my test set", "a"), ("org/name", None), (None, "a"), ("org/name", "../a"), ("../name", "a"), ("org/..", "")],
)
def test_what_is_no_benchmark_is_refused(dataset, task):
    with pytest.raises(UsageError, match="does not name a benchmark"):
        Benchmark.of(dataset, task)


def test_options_of_a_benchmark():
    assert Benchmark.of(None, None) is None
    assert Benchmark.of("hf-audio/open-asr@abc", "librispeech_clean") == replace(ASR, revision="abc")


# The picture


def test_the_card_has_a_picture_of_its_variants(judged, tmp_path):
    pytest.importorskip("vl_convert")
    package = make(judged, tmp_path / "dist", with_plot=True)
    picture = (package / plots.NAME).read_bytes()
    assert picture.startswith(b"\x89PNG") and 2_000 < len(picture) < 60_000
    assert f"]({plots.NAME})" in (package / "README.md").read_text() and verify(package)
    assert make(judged, tmp_path / "dist", with_plot=True) == package  # the same bytes again


def test_without_figures_or_what_draws_there_is_no_picture(facts, monkeypatch):
    assert plots.plot(replace(facts, figures={"fp32": Figures(())})) is None
    monkeypatch.setattr(plots, "DRAWER", "import vl_convert_that_is_not_there")
    assert plots.plot(facts) is None


# Trusted Publishers: the job's identity for a token, by huggingface_hub


@pytest.fixture
def ci(monkeypatch):
    """A job on GitHub whose identity the Hub may exchange; `asked` has what was sent, `answer` what the Hub says."""
    from huggingface_hub import _oidc
    from huggingface_hub.utils import _auth

    for name, value in {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://actions.example/token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
        "HF_OIDC_RESOURCE": "someone/model",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(_auth, "_OIDC_TOKEN_CACHE", None)
    job = SimpleNamespace(asked=[], answer={"access_token": "hf_jwt_short", "expires_in": 3600})

    class Client:
        def get(self, url, params, headers):
            job.asked.append((url, params["audience"], headers["Authorization"]))
            return SimpleNamespace(json=lambda: {"value": "identity"})

        def post(self, url, json):
            job.asked.append((url, json["subject_token"], json["resource"]))
            return SimpleNamespace(json=lambda: job.answer)

    def raise_for_status(response):
        if job.answer is None and response.json() is None:
            raise hub.errors.OIDCError("invalid_grant: no trusted publisher fits")

    monkeypatch.setattr(_oidc, "get_session", Client)
    monkeypatch.setattr(_oidc, "hf_raise_for_status", raise_for_status)
    return job


def test_a_job_publishes_with_a_token_for_its_identity(judged, tmp_path, ci):
    api = FakeApi()
    package = make(judged, tmp_path / "dist")
    lines = publish(package, "someone/model", api=api)
    assert ci.asked == [
        ("https://actions.example/token", "https://huggingface.co", "Bearer request-secret"),
        ("https://huggingface.co/oauth/token", "identity", "someone/model"),
    ]
    assert {options["token"] for _, _, options in api.calls} == {"hf_jwt_short"}
    assert "hf_jwt_short" not in "\n".join(lines) and lines[-1].startswith("Uploaded")


def test_a_job_that_gets_no_token_fails(judged, tmp_path, ci, capsys):
    """And does not end well without an upload."""
    ci.answer = None
    package = make(judged, tmp_path / "dist")
    assert main(["publish", str(package), "--repo", "someone/model"]) == 2
    assert "invalid_grant" in capsys.readouterr().err
    assert main(["publish", str(package), "--repo", "someone/model", "--dry-run"]) == 0
