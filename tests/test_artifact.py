"""Folders that appear whole or not at all, manifests that survive the disk, and what a damaged artifact says."""

import errno
import json
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from samples import CONFIG

from nemoport import files as files_module
from nemoport.artifact import Artifact, FileEntry, Manifest, Recipe, file_entries
from nemoport.errors import ArtifactError, NemoportError, OutputError
from nemoport.files import folder_once, new_folder, read_json, write_bytes, write_json
from nemoport.spec import MOST_FRAMES


@pytest.fixture
def variant(tmp_path):
    """A variant's folder with files that stand for graphs."""
    folder = tmp_path / "build" / "fp32"
    with new_folder(folder) as work:
        (work / "encoder_model.onnx").write_bytes(b"graph")
        (work / "encoder_model.onnx.data").write_bytes(bytes(1000))
        roles = {"encoder": "encoder_model.onnx", "encoder_data": "encoder_model.onnx.data"}
        recipe = Recipe("fp32", None, {"contract": "nemo"})
        files = file_entries(work, roles)
        Manifest("fp32", recipe, recipe.digest, "c" * 64, None, None, {"onnx": "1"}, "x86_64", files).write(work)
    write_json(folder.parent / "config.json", CONFIG)
    return folder


def left_over(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _fill_slowly(folder):
    (folder / "file").write_text("whole")
    time.sleep(0.5)
    (folder / "by").write_text(str(os.getpid()))


def test_processes_that_want_the_same_folder_get_one(tmp_path):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(partial(folder_once, fill=_fill_slowly), [tmp_path / "a"] * 4))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["by", "file"]
    folder_once(tmp_path / "a", lambda folder: pytest.fail("made again"))


def test_new_folder_appears_whole(tmp_path):
    target = tmp_path / "a" / "b"
    with new_folder(target) as work:
        (work / "file").write_text("x")
        (work / "sub").mkdir()
        assert not target.exists()
    assert left_over(target) == ["file", "sub"]
    assert left_over(target.parent) == ["b"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ArtifactError])
def test_exception_leaves_nothing(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "a" / "b") as work:
        (work / "file").write_text("x")
        raise error("stop")
    assert left_over(tmp_path) == []  # nor the folder that was made for it


def test_existing_output_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "a"):
        pytest.fail("must not be entered")
    assert left_over(tmp_path) == ["a"]


def test_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), new_folder(tmp_path / "file" / "a"):
        pytest.fail("must not be entered")
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
    assert (tmp_path / "file").read_text() == "x"


def test_full_disk_monkeypatched(tmp_path, monkeypatch):
    """Full when synced, which is when delayed allocation tells."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"), new_folder(tmp_path / "a") as work:
        (work / "file").write_text("x")
    with pytest.raises(OutputError, match="No space left"):
        write_bytes(tmp_path / "b", b"x")
    assert left_over(tmp_path) == []


def test_full_disk_for_real(tmp_path):
    """A file system of 64 KiB, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OutputError, match="No space left"), new_folder(disk / "a") as work:
            (work / "file").write_bytes(bytes(1 << 20))
        with pytest.raises(OutputError, match="No space left"):
            write_bytes(disk / "b", bytes(1 << 20))
        assert left_over(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_read_only_folder(tmp_path):
    import os

    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="cannot be written"), new_folder(tmp_path / "a"):
            pytest.fail("must not be entered")
    finally:
        tmp_path.chmod(0o755)


def test_write_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(files_module.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OutputError, match="I/O error"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert left_over(tmp_path) == ["a.json"]


def test_manifest_round_trip(variant):
    manifest = Manifest.read(variant)
    again = variant.parent / "again"
    again.mkdir()
    manifest.write(again)
    assert Manifest.read(again) == manifest
    assert (again / "manifest.json").read_bytes() == (variant / "manifest.json").read_bytes()
    assert manifest.files["encoder"] == FileEntry("encoder_model.onnx", 5, manifest.files["encoder"].sha256)


def test_digest_names_the_content(variant):
    """Not the tools nor the machine; everything else."""
    from dataclasses import replace

    manifest = Manifest.read(variant)
    assert replace(manifest, tools={}, machine="other").digest == manifest.digest
    others = {
        "variant": "x",
        "recipe": Recipe("fp32", None, {"contract": "kv"}),
        "recipe_digest": "x",
        "checkpoint_sha256": "x",
        "parent_digest": "x",
        "corpus_digest": "x",
        "files": {},
    }
    for name, value in others.items():
        assert replace(manifest, **{name: value}).digest != manifest.digest, name


def test_open_and_verify(variant):
    artifact = Artifact.open(variant)
    artifact.verify_files()
    assert artifact.spec.streaming.lookaheads == (13, 6, 1, 0)
    assert artifact.encoder.is_file() and artifact.shared == variant.parent / "shared"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped byte": (lambda f: flip(f / "encoder_model.onnx.data"), "content differs"),
    "truncated sidecar": (lambda f: (f / "encoder_model.onnx.data").write_bytes(bytes(999)), "999 bytes, expected 1000"),
    "missing file": (lambda f: (f / "encoder_model.onnx.data").unlink(), "missing: encoder_model.onnx.data"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest not JSON": (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
    "manifest of bytes": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), "is not JSON"),
    "manifest a list": (lambda f: (f / "manifest.json").write_text("[]"), "holds something else"),
    "manifest lacks a key": (lambda f: edit(f, lambda m: m.pop("files")), "no files"),
    "manifest has another key": (lambda f: edit(f, lambda m: m.update(extra=1)), "extra: Unexpected"),
    "manifest of another schema": (lambda f: edit(f, lambda m: m.update(schema=99)), "schema"),
    "no config": (lambda f: (f.parent / "config.json").unlink(), "config.json is missing"),
    "config without spec": (lambda f: (f.parent / "config.json").write_text("{}"), "no spec"),
    "config a list": (lambda f: (f.parent / "config.json").write_text("[]"), "config.json"),
}


def edit(folder, change):
    raw = json.loads((folder / "manifest.json").read_text())
    change(raw)
    (folder / "manifest.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(variant, name):
    damage, message = DAMAGE[name]
    damage(variant)
    with pytest.raises(ArtifactError, match=message) as caught:
        Artifact.open(variant).verify_files()
    assert caught.value.found and caught.value.expected and caught.value.todo


def test_verify_names_all_that_differ(variant):
    flip(variant / "encoder_model.onnx")
    flip(variant / "encoder_model.onnx.data")
    with pytest.raises(ArtifactError, match="encoder_model.onnx: .*encoder_model.onnx.data: "):
        Artifact.open(variant).verify_files()


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_open_what_is_no_folder(tmp_path, what):
    if what == "file":
        (tmp_path / "a").write_text("x")
    with pytest.raises(ArtifactError, match=f"found: {'a file' if what == 'file' else 'nothing'}"):
        Artifact.open(tmp_path / "a")


@pytest.mark.parametrize("content", [None, b"", bytes(7), bytes(128 * 257 * 4 - 4)])
def test_bad_filterbank(variant, content):
    if content is not None:
        write_bytes(variant.parent / "shared" / "filterbank.bin", content)
    with pytest.raises(ArtifactError, match="filterbank"):
        Artifact.open(variant).filterbank()


def test_good_filterbank(variant):
    values = np.arange(128 * 257, dtype=np.float32)
    write_bytes(variant.parent / "shared" / "filterbank.bin", values.tobytes())
    assert (Artifact.open(variant).filterbank() == values.reshape(128, 257)).all()


def test_read_json_says_what_to_do(tmp_path):
    with pytest.raises(NemoportError, match="do: run it"):
        read_json(tmp_path / "a.json", "run it")
    with pytest.raises(NemoportError, match="do: run it"):
        read_json(tmp_path, "run it")


def changed(variant, change):
    """Reads the variant's manifest with another content."""
    raw = json.loads((variant / "manifest.json").read_text())
    change(raw)
    (variant / "manifest.json").write_text(json.dumps(raw))
    return Manifest.read(variant)


@pytest.mark.parametrize("lookahead", [None, 0, MOST_FRAMES])
def test_a_recipe_has_a_target_and_may_have_a_lookahead(variant, lookahead):
    plain = Recipe("fp32", None)
    assert (plain.target, plain.lookahead, plain.parameters) == ("onnxruntime", None, {})
    given = {"target": "coreml", "lookahead": lookahead}
    recipe = changed(variant, lambda raw: raw["recipe"]["parameters"].update(given)).recipe
    assert (recipe.target, recipe.lookahead) == ("coreml", lookahead)
    assert recipe.digest != changed(variant, lambda raw: raw["recipe"]["parameters"].update(target="litert")).recipe.digest


BROKEN = {
    "target": lambda raw: raw["recipe"]["parameters"].update(target=3),
    **{
        f"lookahead {value}": lambda raw, value=value: raw["recipe"]["parameters"].update(lookahead=value)
        for value in (-1, True, 1.5, "6", MOST_FRAMES + 1)
    },
    "key of a recipe": lambda raw: raw["recipe"].update(more=1),
    "key of a file": lambda raw: raw["files"]["encoder"].update(more=1),
    "key of the manifest": lambda raw: raw.update(more=1),
    "schema": lambda raw: raw.update(schema=2),
    "no files": lambda raw: raw.update(files={}),
    "too many files": lambda raw: raw.update(files={f"{i}": raw["files"]["encoder"] for i in range(10_001)}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_manifest_that_says_something_else_is_refused_by_its_path(variant, name):
    with pytest.raises(ArtifactError, match=str(variant / "manifest.json")):
        changed(variant, BROKEN[name])


def test_an_artifact_has_its_files_and_serves_its_lookaheads(variant):
    artifact = Artifact.open(variant)
    assert (artifact.encoder, artifact.decoder) == (variant / "encoder_model.onnx", variant / "decoder_model.onnx")
    assert artifact.shared == variant.parent / "shared" and artifact.lookaheads == (13, 6, 1, 0)
    changed(variant, lambda raw: raw["recipe"]["parameters"].update(lookahead=1))
    assert Artifact.open(variant).lookaheads == (1,)
    assert artifact.config() == CONFIG
