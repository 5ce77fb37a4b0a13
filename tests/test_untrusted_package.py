"""Packages of a stranger, whose hashes are all right: none runs code by `verify`, `publish` or `transcribe`."""

import io
import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import damage
import pytest
import torch

from nemoport.artifact import Artifact, Manifest, Recipe, file_entries
from nemoport.cli import main
from nemoport.errors import ArtifactError, UsageError
from nemoport.external_data import external_places
from nemoport.files import digest_json
from nemoport.graph_file import external_tensors
from nemoport.package.manifest import PackagedVariant, PackageManifest, hash_files
from nemoport.package.shards import shard
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.runtimes import load_runtime, open_session, runtimes
from nemoport.runtimes.onnxruntime.session import open_graph
from nemoport.runtimes.openvino.metadata import read_properties, runtime_properties

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
PROGRAM = "Preencoder_first.pt2"


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x + self.weight


def hostile_program(mark: Path) -> bytes:
    """A torch program whose weight is a pickle that makes a folder when it is loaded."""
    good, bad = io.BytesIO(), io.BytesIO()
    torch.export.save(torch.export.export(Model(), (torch.ones(1),)), good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("_weights_config.json"):
                config = json.loads(data)
                for weight in config["config"].values():
                    weight["use_pickle"] = True
                data = json.dumps(config).encode()
            elif "/data/weights/weight_" in entry.filename:
                data = pickle.dumps(damage.Payload(mark), 2)
            target.writestr(entry.filename, data)
    return bad.getvalue()


@pytest.fixture
def hostile(build, tmp_path):
    """(variant's name, its target, the package's layout) -> a package with a Core ML program that marks its loading."""

    def make(variant: str, target: str, layout: str) -> tuple[Path, Path]:
        mark, package = tmp_path / "mark", tmp_path / "package"
        shutil.copytree(build / "shared", package / "shared")
        shutil.copy(build / "config.json", package)
        shutil.copytree(build / "fp32", package / variant)
        folder = package / variant
        for path in folder.glob("*.onnx*"):
            path.unlink()
        (folder / PROGRAM).write_bytes(hostile_program(mark))
        (folder / "metadata.json").write_text(json.dumps({"graphs": {"stream_pre_first": {"inputs": [], "outputs": []}}}))
        manifest = Manifest.read(folder)
        recipe = Recipe(variant, None, {"target": target, "lookahead": 6})
        files = file_entries(folder, {"a": PROGRAM, "b": "metadata.json"})
        replace(manifest, recipe=recipe, files=files).write(folder)
        sha256 = Manifest.read(folder).checkpoint_sha256
        variants = {variant: PackagedVariant(Manifest.read(folder).digest, ())}
        PackageManifest("x", layout, sha256, "", "apache-2.0", variants, hash_files(package)).write(package)
        return package, mark

    return make


def test_torch_runs_the_payload(tmp_path):
    """Without which the tests below would prove nothing."""
    mark = tmp_path / "mark"
    (tmp_path / PROGRAM).write_bytes(hostile_program(mark))
    with pytest.raises(Exception, match=""):
        torch.export.load(tmp_path / PROGRAM)
    assert mark.is_dir()


@pytest.mark.parametrize("layout", ["native", "coreml"])
@pytest.mark.parametrize("variant", ["kv-int8-weight", "fp32", "coreml-fp32", "openvino-fp32", "coreai-fp32"])
def test_a_program_in_a_package_is_not_loaded(hostile, variant, layout, capsys):
    package, mark = hostile(variant, "coreml", layout)
    folder, audio = package / variant, next(AUDIO.rglob("*.flac"), None) or next(AUDIO.rglob("*.wav"))
    for command in (
        ["verify", str(package)],
        ["publish", str(package), "--repo", "me/x", "--dry-run"],
        ["transcribe", str(folder), str(audio)],
    ):
        code = main(command)
        assert code == 2 or (command[0] != "transcribe" and (variant, layout) == ("coreml-fp32", "coreml"))
        assert "Traceback" not in capsys.readouterr().err
        assert not mark.exists()


def test_a_variant_of_core_ml_is_run_only_where_it_was_built(hostile):
    package, mark = hostile("coreml-fp32", "coreml", "coreml")
    artifact = Artifact.open(package / "coreml-fp32")
    for attempt in (lambda: open_session(artifact), lambda: Recognizer.open(artifact.folder)):
        with pytest.raises(UsageError, match="can hold code"):
            attempt()
    assert not mark.exists()
    assert "not run" in verify(package)[-1]
    assert not mark.exists()


@pytest.mark.parametrize("target", runtimes())
def test_a_variant_has_the_runtime_of_its_name(build, tmp_path, target):
    """No file of hashes chooses another library to open the graphs than the variant's name shows."""
    folder = damage.copy_build(build, tmp_path / "build") / "fp32"
    manifest = Manifest.read(folder)
    parameters = {**manifest.recipe.parameters, "target": target}
    replace(manifest, recipe=replace(manifest.recipe, parameters=parameters)).write(folder)
    if target == "onnxruntime":
        assert open_session(Artifact.open(folder), threads=1)
        return
    with pytest.raises(ArtifactError, match="by its name and of another by its manifest"):
        open_session(Artifact.open(folder), threads=1)


def test_one_runtime_alone_opens_files_that_can_hold_code():
    """A runtime that comes to it must state what it opens."""
    assert [name for name in runtimes() if load_runtime(name).holds_code] == ["coreml"]


# what a graph states of the place of its largest weight -> the reason that must be named
PLACES = {
    "outside": ({"location": "../../secret.bin", "offset": "0"}, "beside the graph"),
    "absolute": ({"location": "/etc/passwd", "offset": "0"}, "beside the graph"),
    "other system's": ({"location": "..\\secret.bin"}, "beside the graph"),
    "device": ({"location": "/dev/zero"}, "beside the graph"),
    "parent": ({"location": ".."}, "beside the graph"),
    "empty": ({"location": ""}, "beside the graph"),
    "escapes": ({"location": "\x1b[2J"}, "beside the graph"),
    "no location": ({"location": None}, "beside the graph"),
    "link": ({"location": "link.data", "offset": "0"}, "a link"),
    "behind the end": ({"offset": str(10**9)}, "needed"),
    "negative offset": ({"offset": "-4096"}, "an offset in bytes"),
    "huge offset": ({"offset": str(2**63)}, "an offset in bytes"),
    "offset of words": ({"offset": "abc"}, "an offset in bytes"),
    "no length": ({"length": "0"}, "by shape and type"),
    "negative length": ({"length": "-5"}, "by shape and type"),
    "huge length": ({"length": str(10**15)}, "by shape and type"),
    "over another": ({"offset": "64"}, "weights overlap"),
}


@pytest.mark.parametrize("name", PLACES)
def test_weights_elsewhere_are_neither_read_nor_copied(build, tmp_path, name):
    import onnx

    changes, reason = PLACES[name]
    secret = b"SECRET-OF-ANOTHER-FOLDER " * 400_000
    (tmp_path / "secret.bin").write_bytes(secret)
    folder = damage.copy_build(build, tmp_path / "a" / "build") / "fp32"
    (folder / "link.data").symlink_to(tmp_path / "secret.bin")
    graph = folder / "encoder_model.onnx"
    model = onnx.load(graph, load_external_data=False)
    tensor = max(external_tensors(model), key=lambda tensor: tensor.bytes).proto
    entry = {e.key: e.value for e in tensor.external_data} | changes
    del tensor.external_data[:]
    for key, value in entry.items():
        if value is not None:
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    graph.write_bytes(model.SerializeToString())
    for attempt in (lambda: shard(graph, tmp_path / "shards", 1 << 30), lambda: open_graph(graph)):
        with pytest.raises(ArtifactError) as caught:
            attempt()
        assert reason in f"{caught.value}"
        assert "\x1b" not in f"{caught.value}"
    assert not (tmp_path / "shards").exists()


def link(folder: Path) -> None:
    shutil.move(folder / "shared", folder.parent / "elsewhere")
    (folder / "shared").symlink_to(folder.parent / "elsewhere")


def file_link(folder: Path) -> None:
    shutil.move(folder / "config.json", folder.parent / "elsewhere.json")
    (folder / "config.json").symlink_to(folder.parent / "elsewhere.json")


def add(path: str, text: str = "x"):
    def change(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)

    return change


STRANGE = {
    "a filter in .gitattributes": add(".gitattributes", "* filter=evil\n"),
    "a filter behind many lines of .gitattributes": add(
        ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n" * 2000 + "* filter=evil\n"
    ),
    ".gitattributes in a folder": add("fp32/.gitattributes", "*.onnx filter=lfs diff=lfs merge=lfs -text\n"),
    "a repository of git": add(".git/config", "[core]\n\tfsmonitor = touch mark\n"),
    "a program beside the Hub's records": add(".cache/huggingface/run.py"),
    "another cache": add(".cache/x.metadata"),
    "a linked folder": link,
    "a linked file": file_link,
    "a linked .gitattributes": lambda f: (f / ".gitattributes").symlink_to("/etc/hostname"),
    "a pipe": lambda f: os.mkfifo(f / "pipe"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_no_package_has_is_refused(clean, name):
    verify(clean)
    STRANGE[name](clean)
    with pytest.raises(ArtifactError, match="is damaged"):
        verify(clean)


def edited(change):
    def edit(folder: Path) -> None:
        raw = json.loads((folder / "manifest.json").read_text())
        raw.pop("digest")
        change(raw)
        (folder / "manifest.json").write_text(json.dumps(raw | {"digest": digest_json(raw)}))

    return edit


MANIFESTS = {
    "no variants": edited(lambda m: m.update(variants={})),
    "schema": edited(lambda m: m.update(schema=99)),
    "no files": edited(lambda m: m.update(files=[])),
    "another key": edited(lambda m: m.update(more=1)),
    "a file outside": edited(lambda m: m["files"][0].update(path="../x")),
    "an absolute file": edited(lambda m: m["files"][0].update(path="/etc/passwd")),
    "another system's path": edited(lambda m: m["files"][0].update(path="..\\x")),
    "a file twice": edited(lambda m: m["files"].append(m["files"][0])),
    "no size": edited(lambda m: m["files"][0].update(bytes=-1)),
    "a size of words": edited(lambda m: m["files"][0].update(bytes="many")),
    "a variant's name": edited(lambda m: m.update(variants={"../fp32": m["variants"]["fp32"]})),
    "escapes": edited(lambda m: m.update(licence="\x1b[2J")),
    "a layout's name": edited(lambda m: m.update(layout="../native")),
    "a key twice": lambda f: (f / "manifest.json").write_text('{"schema": 1, ' + (f / "manifest.json").read_text().lstrip()[1:]),
    "nested": lambda f: (f / "manifest.json").write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "a number without end": lambda f: (f / "manifest.json").write_text('{"schema": ' + "9" * 10_000 + "}"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_bounds(clean, name, capsys):
    MANIFESTS[name](clean)
    assert main(["verify", str(clean)]) == 2
    assert "\x1b" not in capsys.readouterr().err


def config(*keys: str, value: object):
    def change(raw: dict) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


CONFIGS = {
    "no layers": config("spec", "streaming", "n_layers", value=0),
    "endless layers": config("spec", "streaming", "n_layers", value=10**9),
    "a bool": config("spec", "streaming", "n_layers", value=True),
    "a float": config("spec", "streaming", "d_model", value=176.5),
    "infinite": config("spec", "frontend", "preemphasis", value=float("inf")),
    "no number": config("spec", "frontend", "preemphasis", value=float("nan")),
    "no subsampling": config("spec", "streaming", "subsampling_factor", value=0),
    "endless symbols": config("spec", "decoding", "max_symbols_per_frame", value=10**18),
    "caches of a terabyte": lambda raw: raw["spec"]["streaming"].update(
        n_layers=256, d_model=16_384, n_heads=4, left_context_enc_frames=10_000
    ),
    "no hop": config("spec", "frontend", "hop_samples", value=0),
    "a window over n_fft": config("spec", "frontend", "win_samples", value=600),
    "heads that do not divide": config("spec", "streaming", "n_heads", value=7),
    "no lookahead": config("spec", "streaming", "lookaheads", value=[]),
    "a lookahead of words": config("spec", "streaming", "lookaheads", value=["x"]),
    "an unknown head": config("spec", "kind", value="streaming-x"),
    "a default of words": config("encoder", "default_lookahead", value="six"),
    "a shape": config("encoder", "cache_shapes", "cache_last_channel", value=[10**12]),
    "no sections": config("encoder", value=None),
    "escapes": config("checkpoint", "name", value="\x1b[2J"),
    "other sizes than the graph's": config("spec", "streaming", "d_model", value=352),
    "more layers than the graph's": config("spec", "streaming", "n_layers", value=12),
    "another vocabulary than the graph's": config("spec", "decoding", "vocab_size", value=300),
    "a wider state than the graph's": config("spec", "decoding", "pred_hidden", value=320),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_has_bounds(clean, name, capsys):
    """And the graphs' own sizes: a wrong one ends in one clear error, not in a traceback or a hang."""
    raw = json.loads((clean / "config.json").read_text())
    CONFIGS[name](raw)
    (clean / "config.json").write_text(json.dumps(raw))
    reseal(clean)
    audio = next(AUDIO.rglob("*.flac"), None) or next(AUDIO.rglob("*.wav"))
    assert main(["verify", str(clean)]) == 2
    assert main(["transcribe", str(clean / "fp32"), str(audio)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "\x1b" not in error


def reseal(package: Path) -> None:
    """Writes every hash again, as one would who wants it to pass."""
    replace(PackageManifest.read(package), files=hash_files(package)).write(package)


@pytest.fixture
def clean(build, tmp_path):
    """A package of fp32 that `verify` passes."""
    package = tmp_path / "package"
    for name in ("shared", "fp32"):
        shutil.copytree(build / name, package / name)
    shutil.copy(build / "config.json", package)
    manifest = Manifest.read(package / "fp32")
    variants = {"fp32": PackagedVariant(manifest.digest, ())}
    sha256 = manifest.checkpoint_sha256
    PackageManifest("x", "native", sha256, "", "apache-2.0", variants, hash_files(package)).write(package)
    return package


def test_weights_are_found_as_onnx_finds_them(build):
    import onnx

    for graph in build.glob("*/*_model.onnx"):
        model = onnx.load(graph, load_external_data=False)
        expected = [(t.name, t.file, t.offset, t.bytes) for t in external_tensors(model)]
        assert expected and [(p.weight, p.file, p.offset, p.bytes) for p in external_places(graph)] == expected


DISGUISES = {
    "in a graph within": lambda m, t: m.graph.node.add(op_type="If").attribute.add(name="a", type=5).g.initializer.append(t),
    "in a constant": lambda m, t: (
        m.graph.node.add(op_type="Constant", output=["c"]).attribute.add(name="v", type=4).t.CopyFrom(t)
    ),
    "in constants": lambda m, t: m.graph.node.add(op_type="X", output=["c"]).attribute.add(name="v").tensors.append(t),
    "in a function": lambda m, t: m.functions.add(name="f").node.add(op_type="X").attribute.add(name="v").t.CopyFrom(t),
    "sparse": lambda m, t: m.graph.sparse_initializer.add().values.CopyFrom(t),
    "sparse indices": lambda m, t: m.graph.sparse_initializer.add().indices.CopyFrom(t),
    "in training": lambda m, t: m.training_info.add().algorithm.initializer.append(t),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_foreign_file_is_found_wherever_it_is_named(build, tmp_path, name):
    import onnx

    folder = damage.copy_build(build, tmp_path / "build") / "fp32"
    graph = folder / "encoder_model.onnx"
    model = onnx.load(graph, load_external_data=False)
    tensor = onnx.TensorProto(name="evil", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="../../secret.bin")
    DISGUISES[name](model, tensor)
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="beside the graph"):
        open_graph(graph)


BYTES = {
    "a group, which protobuf skips": b"\x0b\x0c",
    "a field cut short": b"\x3a\x7f",
    "a key of 64 bits": b"\xba\x80\x80\x80\x80\x01\x00",
    "a graph twice": b"\x3a\x00\x3a\x00",
    "an endless varint": b"\xff" * 11,
    "nothing": b"",
    "text": b"no graph at all",
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_readers_differ_on_are_refused(build, tmp_path, name):
    graph = tmp_path / "x.onnx"
    graph.write_bytes(BYTES[name] + ((build / "fp32/encoder_model.onnx").read_bytes() if name.startswith("a g") else b""))
    with pytest.raises(ArtifactError):
        external_places(graph)


PROPERTIES = {
    "a folder to write to": {"CACHE_DIR": "/tmp/cache"},
    "another precision": {"INFERENCE_PRECISION_HINT": "bf16"},
    "a number of words": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "x"},
    "endless": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 10**30},
    "unknown": {"LOG_LEVEL": "LOG_TRACE"},
    "threads": {"INFERENCE_NUM_THREADS": 10**6},
    "a list": [1],
    "nothing": None,
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_package_sets_no_library(tmp_path, name):
    """OpenVINO would make the folder that CACHE_DIR names, and load what is in it."""
    own = runtime_properties(128)
    (tmp_path / "metadata.json").write_text(json.dumps({"runtime": own}))
    assert read_properties(tmp_path) == own
    (tmp_path / "metadata.json").write_text(json.dumps({"runtime": PROPERTIES[name]}))
    with pytest.raises(ArtifactError, match="runtime holds values that it cannot have"):
        read_properties(tmp_path)
