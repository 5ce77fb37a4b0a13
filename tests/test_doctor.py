"""nemoport doctor: each planted fault is found, by its own check alone; our own packages have none."""

import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import jsonschema
import onnx
import planted
import pytest

from nemoport.cli import main
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.package.doctor.check import ERROR, NOTE, WARNING
from nemoport.package.doctor.consumers import CONSUMERS
from nemoport.package.doctor.examine import examine
from nemoport.package.doctor.findings import checks
from nemoport.tokens import read_tokens

DOCS = Path(__file__).parent.parent / "docs"
KINDS = {"streaming": "tiny", "offline": "tiny-tdt", "prompt": "tiny-multilingual"}


@pytest.fixture(scope="module")
def builds(random_checkpoint, tmp_path_factory):
    made = {}
    for kind, preset in KINDS.items():
        made[kind] = tmp_path_factory.mktemp("builds") / kind
        export_checkpoint(read_checkpoint(str(random_checkpoint(preset))), made[kind])
    return made


@pytest.fixture(scope="module")
def packages(builds, tmp_path_factory):
    """Packages of nobody in particular: the graphs with their weights inside, a vocabulary, and a configuration of a few keys."""
    made = {}
    for kind, build in builds.items():
        folder = made[kind] = tmp_path_factory.mktemp("packages") / f"model-{kind[:3]}"
        folder.mkdir()
        for source, target in (("encoder_model.onnx", planted.ENCODER), ("decoder_model.onnx", planted.DECODER)):
            model = onnx.load(build / "fp32" / source)
            del model.metadata_props[:]
            onnx.save(model, folder / target)
        pieces = [*read_tokens(build / "shared" / "tokens.txt"), "<blk>"]
        (folder / "vocab.txt").write_text("".join(f"{p} {i}\n" for i, p in enumerate(pieces)), encoding="utf-8")
        spec = json.loads((build / "config.json").read_text())["spec"]
        streaming = spec.get("streaming")
        more = {"left_context": streaming["left_context_enc_frames"]} if streaming else {}
        said = {"normalize": spec["frontend"]["normalize"], "log_eps": 2.0**-24, "blank_id": len(pieces) - 1, **more}
        (folder / "config.json").write_text(json.dumps(said))
    return made


def found(folder, **options):
    return [(one.check, one.severity) for one in examine(folder, **options).findings]


PLANTED = {
    planted.pointer: ("unreadable", ERROR),
    planted.cut_weights: ("sidecar", ERROR),
    planted.linked_weights: ("sidecar", ERROR),
    planted.nan: ("non-finite-weights", ERROR),
    planted.offline: ("offline-graph", ERROR),
    planted.other_left_context: ("left-context", ERROR),
    planted.shorter_attention: ("left-context", ERROR),
    planted.caches_that_shrink: ("left-context", ERROR),
    planted.unstated_sizes: ("cache-sizes", WARNING),
    planted.swapped_names: ("cache-order", ERROR),
    planted.layer_first_outputs: ("cache-order", ERROR),
    planted.reversed_layers: ("cache-order", ERROR),
    planted.rolled_streams: ("cache-order", ERROR),
    planted.prompt_built_in: ("baked-prompt", ERROR),
    planted.prompt_ignored: ("baked-prompt", ERROR),
    planted.log_softmax: ("softmax", WARNING),
    planted.log_softmax_by_hand: ("softmax", WARNING),
    planted.softmax_by_hand: ("softmax", WARNING),
    planted.no_blank: ("blank", ERROR),
    planted.blank_first: ("blank", ERROR),
    planted.other_blank: ("blank", ERROR),
    planted.no_vocabulary: ("vocabulary", WARNING),
    planted.other_vocabulary: ("vocabulary", ERROR),
    planted.no_decoder: ("vocabulary", ERROR),
    planted.quantized_subsampling: ("quantized-subsampling", WARNING),
    planted.whole_scale: ("per-tensor-weights", WARNING),
    planted.whole_range: ("per-tensor-activations", WARNING),
    planted.full_range: ("saturation", WARNING),
    planted.per_feature: ("normalisation", ERROR),
    planted.other_guard: ("log-guard", WARNING),
    planted.other_guard_in_a_front_end: ("log-guard", WARNING),
    planted.fixed_window: ("first-chunk", WARNING),
    planted.dropping: ("first-chunk", WARNING),
    planted.length_ignored: ("tail", WARNING),
    planted.uncounted: ("tail", WARNING),
    planted.lengths_in_fp16: ("fp16-lengths", ERROR),
    planted.halves: ("fp16-interface", WARNING),
    planted.infinite: ("runs", ERROR),
    planted.shapes_that_do_not_meet: ("runs", ERROR),
}
OF_KIND = {planted.prompt_built_in: "prompt", planted.prompt_ignored: "prompt", planted.lengths_in_fp16: "offline"}
BY_CONSUMER = {"integer-types", "consumer-contract", "operators", "last-row"}  # which have tests of their own


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_nothing_else(plant, packages, tmp_path):
    folder = tmp_path / "package"
    shutil.copytree(packages[OF_KIND.get(plant, "streaming")], folder)
    plant(folder)
    assert found(folder) == [PLANTED[plant]]


def test_every_check_has_a_planted_fault():
    assert {name for name, _ in PLANTED.values()} | BY_CONSUMER == set(checks())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_where_nothing_is_planted(kind, packages, builds):
    assert found(packages[kind]) == [] and found(builds[kind]) == []
    assert found(builds[kind] / "fp32") == [] and found(packages[kind], static=True) == []
    assert [model.ran for model in examine(packages[kind]).models] == [True]
    assert [model.ran for model in examine(packages[kind], static=True).models] == [False]


def laid_out(build, layout, folder):
    from nemoport.package.layouts import load_layout

    folder.mkdir(parents=True)
    load_layout(layout).lay_out(build, ["fp32"], folder)
    return folder


BY_ITSELF = {  # what a program does to streaming models, whatever the package
    "sherpa-onnx": ["first-chunk", "tail"],
    "genai": ["first-chunk", "last-row"],
    "parakeet-rs": ["first-chunk", "tail"],
    "speech-core": ["first-chunk"],
}
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("streaming", "sherpa-onnx"),
        ("streaming", "genai"),
        ("offline", "sherpa-onnx"),
        ("offline", "onnx-asr"),
        ("offline", "genai"),
        ("prompt", "sherpa-onnx"),
        ("prompt", "speech-core"),
        pytest.param("wide-streaming", "parakeet-rs", marks=slow),
        pytest.param("wide-tdt", "parakeet-js", marks=slow),
        pytest.param("tiny-ctc", "transformers-js", marks=slow),
    ],
)
def test_our_layouts_have_nothing_that_their_program_does_not_do_by_itself(kind, layout, builds, random_checkpoint, tmp_path):
    if kind not in builds:
        export_checkpoint(read_checkpoint(str(random_checkpoint(kind))), tmp_path / "build")
    folder = laid_out(builds.get(kind, tmp_path / "build"), layout, tmp_path / "package")
    notes = [(name, NOTE) for name in BY_ITSELF.get(layout, ()) if kind in ("streaming", "prompt", "wide-streaming")]
    assert found(folder) == (notes if layout == "speech-core" else [])
    assert found(folder, consumer=layout) == notes


@slow
def test_our_precisions_have_nothing(build, tmp_path):
    from damage import copy_build
    from quantizing import quiet, short_manifest

    from nemoport.quantize import build_variant

    copy = copy_build(build, tmp_path / "build")
    export_checkpoint(read_checkpoint(str(DOCS.parent / "reference" / "checkpoints" / "streaming-en.nemo")), copy, "kv")
    for variant in ("fp16", "int8-weight", "int8-dynamic", "int8-static", "int4-weight", "kv-int8-dynamic"):
        build_variant(copy, variant, short_manifest(tmp_path), progress=quiet)
    assert found(copy) == []


def test_weights_of_a_file_with_several_links_are_read(builds, tmp_path):
    from onnx import TensorProto, numpy_helper

    from nemoport.foreign.graph import read_graph
    from nemoport.package.doctor.weights import values_of

    source = builds["streaming"] / "fp32"
    shutil.copytree(source, tmp_path / "fp32")
    os.link(tmp_path / "fp32" / "encoder_model.onnx.data", tmp_path / "second")  # which onnx refuses
    graph = read_graph("encoder_model.onnx", tmp_path / "fp32" / "encoder_model.onnx")
    beside = [tensor for tensor in graph.initializers.values() if tensor.data_location == TensorProto.EXTERNAL]
    assert beside
    for tensor in beside:
        assert (values_of(graph, tensor.name) == numpy_helper.to_array(tensor, base_dir=str(source))).all()
        assert tensor.data_location == TensorProto.EXTERNAL


def test_a_program_that_wants_something_else(builds, packages, tmp_path):
    sherpa = laid_out(builds["streaming"], "sherpa-onnx", tmp_path / "sherpa")
    rows = {
        name: dict.fromkeys(check for check, severity in found(sherpa, consumer=name, static=True) if severity != NOTE)
        for name in CONSUMERS
    }
    assert [*rows["genai"]] == ["consumer-contract", "integer-types"]  # time-major features, i64 tokens
    assert [*rows["parakeet-rs"]] == ["cache-order", "consumer-contract"]  # layer first, fused
    assert [*rows["speech-core"]] == ["cache-order", "integer-types"]
    assert [*rows["onnx-asr"]] == [*rows["parakeet-js"]] == ["consumer-contract"]  # offline models alone
    assert not rows["cuda"] and not rows["tensorrt"]
    assert ("consumer-contract", ERROR) in found(packages["streaming"], consumer="sherpa-onnx")  # metadata, a split decoder
    assert ("offline-graph", ERROR) in found(packages["offline"], consumer="speech-core")
    with pytest.raises(UsageError, match="sherpa-onnx"):
        examine(sherpa, "none")


@pytest.mark.parametrize(("plant", "wrong"), [(planted.own_operator, "my.ops.Mine"), (planted.newer_opset, "999")])
def test_operators_that_nobody_has(plant, wrong, packages, tmp_path):
    shutil.copytree(packages["streaming"], tmp_path / "package")
    plant(tmp_path / "package")
    (one,) = examine(tmp_path / "package", static=True).findings
    assert (one.check, one.severity) == ("operators", ERROR) and wrong in one.found
    assert ("runs", ERROR) in found(tmp_path / "package")


def test_operators_that_a_device_lacks(packages, tmp_path):
    shutil.copytree(packages["streaming"], tmp_path / "package")
    planted.whole_range(tmp_path / "package")
    assert ("operators", WARNING) in found(tmp_path / "package", consumer="tensorrt", static=True)
    assert ("operators", WARNING) not in found(tmp_path / "package", consumer="cuda", static=True)


def test_what_is_printed(packages, tmp_path, capsys):
    folder = tmp_path / "package"
    shutil.copytree(packages["streaming"], folder)
    assert main(["doctor", str(folder), "--quiet"]) == 0
    assert capsys.readouterr().out.endswith("package: nothing found\n")
    planted.other_guard(folder)
    assert main(["doctor", str(folder), "--quiet", "--static"]) == 1
    text = capsys.readouterr().out
    assert "encoder.onnx: streaming-rnnt, not run" in text and "warning: another guard of the logarithm (log-guard)" in text
    assert main(["doctor", str(folder), "--json", "--quiet", "--static"]) == 1
    raw = json.loads(capsys.readouterr().out)
    jsonschema.validate(raw, json.loads((DOCS / "schemas" / "doctor.schema.json").read_text()))
    assert raw == json.loads(json.dumps(asdict(examine(folder, static=True)))) and raw["findings"][0]["expected"].startswith(
        "5.96e-08"
    )
    (folder / "encoder.onnx").unlink()
    (folder / "decoder_joint.onnx").unlink()
    assert main(["doctor", str(folder), "--quiet"]) == 2 and main(["doctor", str(tmp_path / "none"), "--quiet"]) == 2
    assert "no ONNX graph" in capsys.readouterr().err


def test_a_repository_of_the_hub_is_downloaded_without_links(packages, tmp_path, monkeypatch):
    from huggingface_hub import constants

    asked = []

    def snapshot_download(repo, **options):
        asked.append((repo, options["revision"]))
        shutil.copytree(packages["streaming"], options["local_dir"])
        return str(options["local_dir"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert examine("someone/model@main").findings == () and asked == [("someone/model", "main")]


def test_names_of_a_stranger_command_no_terminal(packages, tmp_path, capsys):
    folder = tmp_path / "package"
    shutil.copytree(packages["streaming"], folder)
    (folder / "\x1b[2J.onnx").write_bytes(b"x")
    assert main(["doctor", str(folder), "--quiet", "--static"]) == 1
    assert "\x1b" not in capsys.readouterr().out


def table():
    """The table of docs/doctor.md."""
    for name, check in checks().items():
        reports = ", ".join(f"[{short(address)}]({address})" for address in check.reports) or "none known"
        yield f"| `{name}`{' (runs)' if check.runs else ''} | {check.title} | {check.why} | {check.todo} | {reports} |"


def short(address):
    host, *parts = address.removeprefix("https://").split("/")
    return (f"{parts[1]}#{parts[3]}" if len(parts) > 3 else parts[1]) if host == "github.com" else host


def test_the_page_lists_every_check():
    rows = re.findall(r"^\| `.*$", (DOCS / "doctor.md").read_text(encoding="utf-8").partition("\n## `--consumer`")[0], re.M)
    assert rows == list(table()), "write these rows"


def test_checks_state_why_what_to_do_and_reports():
    for name, check in checks().items():
        assert check.why.endswith(".") and check.todo.endswith(".") and not check.title.endswith("."), name
        assert all(address.startswith("https://") for address in check.reports), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cached", "expected"),
    [
        ("streaming-en", True, ["cache-sizes", "first-chunk", "vocabulary"]),
        ("streaming-multilingual", True, ["baked-prompt", "cache-sizes", "first-chunk", "vocabulary"]),
        ("streaming-en", False, ["offline-graph", "vocabulary"]),
        ("offline-tdt", False, ["vocabulary"]),
    ],
)
def test_nemos_own_export_has_its_real_findings(name, cached, expected, tmp_path):
    from nemoport.validate import nemo

    checkpoint = read_checkpoint(str(DOCS.parent / "reference" / "checkpoints" / f"{name}.nemo"))
    model = nemo.restore(checkpoint)
    folder = tmp_path / f"{name}-onnx"
    folder.mkdir()
    with nemo.quiet():
        if cached:
            left = checkpoint.spec.require_streaming().left_context_enc_frames
            model.encoder.set_default_att_context_size([left, 6 if name == "streaming-en" else 3])
            model.set_export_config({"cache_support": "True"})
        model.export(str(folder / "x.onnx"), verbose=False)
    assert [check for check, _ in found(folder)] == expected


def test_a_graph_that_onnx_does_not_allow_is_a_finding(packages, tmp_path):
    """A DequantizeLinear without a scale: a check that reads it fails, the others go on."""
    folder = tmp_path / "package"
    shutil.copytree(packages["streaming"], folder)
    planted.whole_scale(folder)
    planted.other_guard(folder)

    def edit(model):
        del next(node for node in model.graph.node if node.op_type == "DequantizeLinear").input[1:]

    planted.edited(folder, planted.ENCODER, edit)
    names = {name for name, _ in found(folder, static=True)}
    assert names == {"unreadable", "log-guard"}


def test_a_folder_without_an_encoder_is_a_finding(packages, tmp_path):
    for name in (planted.DECODER, "vocab.txt", "config.json"):
        shutil.copy(packages["streaming"] / name, tmp_path / name)
    (one,) = examine(tmp_path).findings
    assert (one.check, one.severity, one.found) == ("unreadable", ERROR, "decoder_joint.onnx: decoder and joint")
