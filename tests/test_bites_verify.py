"""What `verify` looks at, each thing alone, without a graph: files, manifests, weights, the frames of silence."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import samples

from nemoport.artifact import FileEntry
from nemoport.errors import ArtifactError, UsageError
from nemoport.files import sha256_file
from nemoport.package import verify as module
from nemoport.package.verify import verify
from nemoport.progress import silent
from nemoport.prompt import PromptSpec
from nemoport.spec import ModelSpec

STREAMING, OFFLINE = ModelSpec.from_dict(samples.SPEC), ModelSpec.from_dict(samples.OFFLINE_SPEC)
NORMALISED = replace(OFFLINE, frontend=replace(OFFLINE.frontend, normalize="per_feature"))
PROMPT = replace(STREAMING, prompt=PromptSpec(4, {"de": 1}))
GUARD = np.float32(np.log(2.0**-24))


class Session:
    """A session whose graphs give zeros, but for what is broken: frames, valid, logits, hidden, cell -> what they give."""

    def __init__(self, spec, count, **broken):
        self.spec, self.broken = spec, broken
        self.frames = broken.get("frames", np.zeros((1, count, 176), np.float32))
        self.valid = np.array([broken.get("valid", count)])

    def initial_state(self, batch, prompts):
        assert (batch, prompts) == (1, [0] if self.spec.prompt else [])
        return "fresh"

    def encode(self, mel, lengths, state):
        if error := self.broken.get("error"):
            raise error
        self.mel = mel
        assert (state, lengths.tolist(), mel.dtype) == ("fresh", [mel.shape[2]], np.float32)
        return self.frames, self.valid, state

    def step(self, frames, tokens, state):
        assert frames is self.frames and (tokens.tolist(), tokens.dtype) == ([96], np.int32)
        assert [(part.shape, part.dtype, part.any()) for part in state] == [((2, 1, 160), np.float32, False)] * 2
        hidden, cell = (self.broken.get(name, np.zeros((2, 1, 160), np.float32)) for name in ("hidden", "cell"))
        return self.broken.get("logits", np.zeros((1, *frames.shape[1:2], 97), np.float32)), (hidden, cell)


@pytest.mark.parametrize(
    ("spec", "lookaheads", "count", "size", "level"),
    [
        (STREAMING, (13, 6, 1, 0), 14, 105, GUARD),
        (STREAMING, (0, 6, 1), 7, 49, GUARD),
        (PROMPT, (1,), 2, 9, GUARD),
        (OFFLINE, (None,), 6, 48, GUARD),
        (NORMALISED, (None,), 6, 48, 0.0),
    ],
)
def test_silence_is_as_long_as_the_longest_first_window(spec, lookaheads, count, size, level):
    session = Session(spec, count)
    assert module._run_silence(Path("place"), session, lookaheads) == f"{count} finite frames of silence"
    assert session.mel.shape == (1, 128, size) and (session.mel == level).all()


def spoiled(shape, value=np.nan):
    values = np.zeros(shape, np.float32)
    values.flat[-1] = value
    return values


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ({"frames": np.zeros((1, 5, 176), np.float32)}, "6 of 5 frames valid, scores of the shape (1, 5, 97), not (1, 6, 97)"),
        ({"logits": np.zeros((1, 6, 98), np.float32)}, "6 of 6 frames valid, scores of the shape (1, 6, 98), not (1, 6, 97)"),
        ({"valid": 5}, "5 of 6 frames valid, scores of the shape (1, 6, 97), not (1, 6, 97)"),
        ({"frames": spoiled((1, 6, 176))}, "values that are not finite"),
        ({"logits": spoiled((1, 6, 97), np.inf)}, "values that are not finite"),
        ({"hidden": spoiled((2, 1, 160))}, "values that are not finite"),
        ({"cell": spoiled((2, 1, 160), -np.inf)}, "values that are not finite"),
        ({"error": ValueError("a line\nmore")}, "a line"),
    ],
)
def test_graphs_that_give_something_else_do_not_run(broken, found):
    with pytest.raises(ArtifactError, match="^place does not run") as error:
        module._run_silence(Path("place"), Session(OFFLINE, 6, **broken), (None,))
    assert error.value.found == found


def manifest_of(folder, *names, variants=("fp32", "fp16"), layout="native"):
    """A folder with these files, and a manifest of them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    files = tuple(FileEntry(name, len(name), sha256_file(folder / name)) for name in names)
    listed = {name: SimpleNamespace(digest=name) for name in variants}
    return SimpleNamespace(files=files, variants=listed, layout=layout, checkpoint_sha256="c" * 64, schema=3, digest="d" * 64)


@pytest.fixture
def no_sums(monkeypatch):
    found = []
    monkeypatch.setattr(module, "check_sums", lambda folder, manifest: found)
    return found


NAMES = ("LICENSE", "fp32/a", "fp16/b", "fp16/deeper/c")


def test_files_are_those_of_the_manifest(tmp_path, no_sums):
    manifest = manifest_of(tmp_path, *NAMES)
    said = "4 files, 32 bytes: sizes and sha256 as recorded"
    assert module._check_files(tmp_path, manifest, ["fp16", "fp32"], silent) == said
    (tmp_path / "fp16" / "b").unlink()
    (tmp_path / "fp16" / "more").write_text("")  # of a variant that is not checked
    assert module._check_files(tmp_path, manifest, ["fp32"], silent) == "2 files, 13 bytes: sizes and sha256 as recorded"


def test_all_damage_of_files_is_named(tmp_path, no_sums):
    manifest = manifest_of(tmp_path, *NAMES, "x", "y", "z")
    (tmp_path / "fp16" / "b").unlink()
    (tmp_path / "fp16" / "more").write_text("")
    (tmp_path / "fp32" / "a").write_text("fp32/b")
    (tmp_path / "LICENSE").write_text("LICENSES")
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to(tmp_path / "y")
    no_sums.append("SHA256SUMS: no")
    with pytest.raises(ArtifactError) as error:
        module._check_files(tmp_path, manifest, ["fp32", "fp16"], silent)
    assert error.value.found.split("; ") == [
        "fp16/b: missing",
        "fp16/more: not in the manifest",
        "LICENSE: 8 bytes, expected 7",
        "fp32/a: content differs from its sha256",
        "x: a link, or no file",
        "SHA256SUMS: no",
    ]
    assert error.value.expected.startswith("the 7 files")


def test_much_damage_is_clipped(tmp_path, no_sums):
    no_sums.append("x" * 5000)
    with pytest.raises(ArtifactError) as error:
        module._check_files(tmp_path, manifest_of(tmp_path, *NAMES), ["fp32"], silent)
    assert error.value.found == "x" * 4000 + " ..."


def test_weights_are_those_of_every_graph_but_of_variants_that_are_not_checked(tmp_path, monkeypatch):
    manifest = manifest_of(tmp_path, "fp32/e.onnx", "fp32/e.onnx.data", "fp16/e.onnx", "shared/f.onnx", "g.onnx")
    checked = []
    monkeypatch.setattr(module, "check_finite_weights", lambda path: checked.append(path.relative_to(tmp_path).as_posix()))
    assert module._check_weights(tmp_path, manifest, ["fp32", "fp16"]) == "; finite weights in 4 ONNX graphs"
    assert sorted(checked) == ["fp16/e.onnx", "fp32/e.onnx", "g.onnx", "shared/f.onnx"]
    checked.clear()
    assert module._check_weights(tmp_path, manifest, ["fp32"]) == "; finite weights in 3 ONNX graphs"
    assert "fp16/e.onnx" not in checked
    (tmp_path / "none").mkdir()
    assert module._check_weights(tmp_path / "none", manifest, ["fp32"]) == ""


def test_variants_that_are_asked_for_are_known(tmp_path):
    manifest = manifest_of(tmp_path, *NAMES)
    assert module._wanted(tmp_path, manifest, None) == ["fp16", "fp32"] == module._wanted(tmp_path, manifest, [])
    assert module._wanted(tmp_path, manifest, ["fp32", "fp16", "fp32"]) == ["fp16", "fp32"]
    assert module._wanted(tmp_path, manifest, ["fp32"]) == ["fp32"]
    with pytest.raises(UsageError, match="has no variant int4, int8") as error:
        module._wanted(tmp_path, manifest, ["int8", "fp32", "int4"])
    assert (error.value.expected, error.value.found) == ("one of fp16, fp32", "int4, int8")


def test_a_variant_is_the_one_that_the_package_was_made_with(monkeypatch):
    manifest = manifest_of(Path(), variants=("fp32",))
    monkeypatch.setattr(module, "runtime_of", lambda artifact: SimpleNamespace(name=artifact.runtime))

    def check(digest="fp32", checkpoint="c" * 64, runtime="onnxruntime"):
        found = SimpleNamespace(digest=digest, checkpoint_sha256=checkpoint)
        module._check_recorded(SimpleNamespace(folder="f", manifest=found, runtime=runtime), manifest, "fp32", "onnxruntime")

    check()
    for other, named in (
        ({"digest": "e" * 64}, f"manifest {'e' * 12} of {'c' * 12}, for onnxruntime"),
        ({"checkpoint": "e" * 64}, f"manifest fp32 of {'e' * 12}, for onnxruntime"),
        ({"runtime": "openvino"}, f"manifest fp32 of {'c' * 12}, for openvino"),
    ):
        with pytest.raises(ArtifactError) as error:
            check(**other)
        assert error.value.found == named and error.value.expected == f"manifest fp32 of checkpoint {'c' * 12}, for onnxruntime"


def test_each_layout_is_opened_in_its_own_way(monkeypatch):
    """A layout with folders of variants as nemoport opens them, but not where a file can hold code; any other by its graphs."""
    layout, asked = SimpleNamespace(runtime="mine", artifact_folder=None, graphs=lambda folder, variant: ("e", "d")), []
    monkeypatch.setattr(module, "load_layout", lambda name: {"native": layout}[name])
    monkeypatch.setattr(module, "load_runtime", lambda name: SimpleNamespace(holds_code={"mine": None, "other": "a thing"}[name]))
    monkeypatch.setattr(module, "_run_silence", lambda *given: f"ran {given}")
    monkeypatch.setattr(module, "open_graphs", lambda *given: ("place", given, "all"))
    monkeypatch.setattr(module, "_check_recorded", lambda *given: asked.append(given))
    monkeypatch.setattr(module, "open_session", lambda artifact, threads: (artifact.folder, threads))
    opened = SimpleNamespace(folder="F/v", lookaheads=(6,))
    monkeypatch.setattr(module, "Artifact", SimpleNamespace(open=lambda folder: {"F/v": opened}[folder]))
    manifest = SimpleNamespace(layout="native")
    assert module._check_variant("F", manifest, "v") == f"loads in mine, ran {('place', ('F', layout, 'v'), 'all')}"
    assert not asked
    layout.artifact_folder = lambda folder, variant: f"{folder}/{variant}"
    assert module._check_variant("F", manifest, "v") == f"loads in mine, ran {('F/v', ('F/v', 1), (6,))}"
    assert asked == [(opened, manifest, "v", "mine")]
    layout.runtime = "other"
    assert module._check_variant("F", manifest, "v") == "not run, because a thing can hold code" and len(asked) == 2


def test_graphs_are_one_two_or_three(monkeypatch):
    def read(folder, todo):
        assert folder == "F" and todo == "download or make the package again"
        return samples.CONFIG

    monkeypatch.setattr(module, "read_config", read)
    monkeypatch.setattr(module, "OnnxSession", lambda *given, threads: ("two", *given[1:], threads))
    monkeypatch.setattr(module, "SplitSession", lambda *given, threads: ("three", *given[1:], threads))
    monkeypatch.setattr(module, "MergedSession", lambda *given, threads: ("one", *given[1:], threads))
    parts = SimpleNamespace(graphs=lambda folder, variant, head: (f"{folder}/{variant}/e-{head}", "d"), open_variant=None)
    assert module.open_graphs("F", parts, "v") == ("F/v/e-rnnt", ("two", "F/v/e-rnnt", "d", 1), (13, 6, 1, 0))
    parts.graphs = lambda folder, variant, head: ("m",)
    assert module.open_graphs("F", parts, "v") == ("m", ("one", "m", 1), (13, 6, 1, 0))
    parts.graphs = lambda folder, variant, head: ("e", "d", "j")
    assert module.open_graphs("F", parts, "v") == ("e", ("three", "e", "d", "j", 1), (13, 6, 1, 0))
    parts.open_variant = lambda folder, variant, spec: ("its own", folder, variant, spec.kind)
    assert module.open_graphs("F", parts, "v") == ("e", ("its own", "F", "v", "streaming-rnnt"), (13, 6, 1, 0))


def test_verify_says_what_it_checked(tmp_path, no_sums, monkeypatch):
    manifest = manifest_of(tmp_path, *NAMES)
    monkeypatch.setattr(module.PackageManifest, "read", lambda folder: {tmp_path: manifest}[folder])
    monkeypatch.setattr(
        module, "_check_variant", lambda *given: f"{given[2]} runs" if given[:2] == (tmp_path, manifest) else None
    )
    assert verify(str(tmp_path)) == [
        "manifest.json: schema 3, digest dddddddddddd",
        "4 files, 32 bytes: sizes and sha256 as recorded",
        "fp16: fp16 runs",
        "fp32: fp32 runs",
    ]
    monkeypatch.setattr(module, "_check_weights", lambda *given: "; weights" if given == (tmp_path, manifest, ["fp32"]) else None)
    assert verify(tmp_path, ["fp32"])[1:] == ["2 files, 13 bytes: sizes and sha256 as recorded; weights", "fp32: fp32 runs"]
