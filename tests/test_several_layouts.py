"""Packages of several layouts at once: each is whole and runs, equal files are one on the disk, and what cannot be linked is
copied."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_package import LOOKAHEADS, write_results

from nemoport.errors import OutputError, UsageError
from nemoport.package import assemble, links
from nemoport.package.assemble import package_layouts
from nemoport.package.manifest import PackageManifest, hash_files
from nemoport.package.verify import verify

LAYOUTS = ["native", "genai", "sherpa-onnx", "genai"]
OPTIONS = {"licence": "apache-2.0", "required_passes": lambda build, variant: [], "variants": ["fp32"]}
WEIGHTS = ("native/fp32/encoder_model.onnx.data", "genai/fp32/encoder.onnx.data")


@pytest.fixture(scope="module")
def judged(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "build"
    shutil.copytree(build, folder, ignore=shutil.ignore_patterns("kv-*", "results"))
    write_results(folder, "fp32")
    return folder


@pytest.fixture
def on_ext4(monkeypatch):
    monkeypatch.setattr(assemble, "shares_blocks", lambda folder: False)


def test_equal_files_are_one_and_each_package_is_whole(judged, tmp_path, on_ext4):
    folders = package_layouts(judged, tmp_path / "dist", LAYOUTS, **OPTIONS)
    assert folders == [tmp_path / "dist" / name for name in LAYOUTS[:3]]
    assert {path.name for path in (tmp_path / "dist").iterdir()} == set(LAYOUTS)
    one, other = (tmp_path / "dist" / path for path in WEIGHTS)
    assert one.samefile(other) and not other.samefile(judged / "fp32/encoder_model.onnx.data")
    for folder in folders:
        assert any("finite frames of silence" in line for line in verify(folder))
    before = {folder: PackageManifest.read(folder).digest for folder in folders}
    assert package_layouts(judged, tmp_path / "dist", LAYOUTS, **OPTIONS) == folders  # they stay
    assert before == {folder: PackageManifest.read(folder).digest for folder in folders} and one.samefile(other)
    card = (folders[1] / "README.md").read_text()
    assert "```python" in card and f"{1280 * (max(LOOKAHEADS) + 1)} (lookahead {max(LOOKAHEADS)})" in card


def test_links_are_counted_and_small_files_are_left(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "shares_blocks", lambda folder: True)  # so that nothing is linked yet
    folders = package_layouts(judged, tmp_path / "dist", ["native", "genai"], **OPTIONS)
    one, other = (tmp_path / "dist" / path for path in WEIGHTS)
    assert not one.samefile(other)
    assert links.link_equal(folders) == one.stat().st_size and one.samefile(other)
    assert links.link_equal(folders) == 0
    assert not any(folders[0].joinpath(name).samefile(folders[1] / name) for name in ("config.json", "LICENSE"))


def test_equal_files_of_one_package_stay_apart(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        for name in ("one", "two"):
            (folder / name).write_bytes(bytes(links.LEAST_BYTES))
    monkeypatch.setattr(links.PackageManifest, "read", lambda folder: SimpleNamespace(files=hash_files(folder)))
    assert links.link_equal(folders[:1]) == 0 and not (folders[0] / "one").samefile(folders[0] / "two")
    assert links.link_equal(folders) == 2 * links.LEAST_BYTES
    assert (folders[0] / "one").samefile(folders[1] / "two") and (folders[0] / "two").stat().st_nlink == 1


def test_a_file_system_without_links_has_copies(judged, tmp_path, on_ext4, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folders = package_layouts(judged, tmp_path / "dist", ["native", "genai"], **OPTIONS)
    one, other = (tmp_path / "dist" / path for path in WEIGHTS)
    assert not one.samefile(other) and one.read_bytes() == other.read_bytes()
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {"native", "genai"} and all(map(verify, folders))


def test_one_layout_is_the_folder_itself_and_several_do_not_go_into_it(judged, tmp_path):
    assert package_layouts(judged, tmp_path / "dist", ["genai"], **OPTIONS) == [tmp_path / "dist"]
    with pytest.raises(OutputError, match="is one package"):
        package_layouts(judged, tmp_path / "dist", ["genai", "native"], **OPTIONS)
    with pytest.raises(UsageError, match="has no shards"):
        package_layouts(judged, tmp_path / "more", ["genai", "native"], shard_bytes=10**6, **OPTIONS)
