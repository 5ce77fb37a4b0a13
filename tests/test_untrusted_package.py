"""Packages of a stranger, whose hashes are all right: none runs code by `verify`, `publish` or `transcribe`."""

import io
import json
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
from nemoport.graph_file import external_tensors
from nemoport.package.manifest import PackagedVariant, PackageManifest, hash_files
from nemoport.package.shards import shard
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.runtimes import load_runtime, open_session, runtimes
from nemoport.runtimes.onnxruntime.session import open_graph

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
