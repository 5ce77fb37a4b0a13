"""The layers, the picture of them, and the registries: what docs/architecture.md states is so."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemoport.export.targets import targets
from nemoport.package.layouts import layouts, load_layout
from nemoport.quantize import precisions
from nemoport.runtimes import load_runtime, runtimes
from nemoport.validate.limits import read_limits

ROOT = Path(__file__).resolve().parent.parent
DRAWING = runpy.run_path(str(ROOT / "docs" / "draw_layers.py"))
LINKS = ROOT / ".ci" / "tree.py"
LINKING = runpy.run_path(str(LINKS))
FOLDERS = {"nemoport": ROOT / "nemoport", "nemoport.export": ROOT / "export"}
MOST_LINES = 250


def test_the_picture_is_of_the_contract():
    assert (ROOT / "docs" / "layers.svg").read_text(encoding="utf-8") == DRAWING["drawing"]()


def test_every_module_stands_in_a_layer():
    known = {f"nemoport.{name}" for row in DRAWING["layers"]() for name in row}
    found = {
        f"{package}.{path.stem}"
        for package, folder in FOLDERS.items()
        for path in folder.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and not path.name.startswith("__")
    }
    assert found - known == set() and "nemoport.spec" in found


def test_modules_are_short():
    folders = ("nemoport", "export", "quantize", "distill", "calibration", "validate", "package", "reference", "web")
    lengths = {path: len(path.read_text().splitlines()) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > MOST_LINES} == {}


@pytest.fixture
def tree(tmp_path):
    """A copy of the linked tree that import-linter looks at, whose files may be changed."""
    LINKING["link_tree"](tmp_path / "tree")
    return tmp_path / "tree"


def test_the_tree_is_made_anew_in_place(tree):
    """Links that are wrong and files that are not of the project go; so does what a removed package leaves of bytecode, which
    would be a namespace."""
    fresh = sorted(tree.rglob("*"))
    moved, bytecode = tree / "nemoport" / "tokens.py", tree / "nemoport" / "export" / "__pycache__" / "build.pyc"
    moved.unlink()
    moved.symlink_to(ROOT / "elsewhere" / "tokens.py")
    for stray in (tree / "nemoport" / "stray.py", tree / "nemoport" / "removed" / "__pycache__" / "x.pyc", bytecode):
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text("")
    LINKING["link_tree"](tree)
    assert moved.resolve() == ROOT / "nemoport" / "tokens.py"
    assert sorted({*tree.rglob("*")} - {bytecode, bytecode.parent}) == fresh and bytecode.is_file()


def test_a_tree_that_is_made_by_several_processes_never_lacks_a_file(tree):
    (tree / "nemoport" / "tokens.py").unlink()
    code = "import pathlib, runpy, sys\nfor _ in range(9): runpy.run_path(sys.argv[1])['link_tree'](pathlib.Path(sys.argv[2]))"
    makers = [subprocess.Popen([sys.executable, "-c", code, LINKS, tree]) for _ in range(2)]
    while not (tree / "nemoport" / "tokens.py").is_file():
        assert None in [maker.poll() for maker in makers]
    missed = 0
    while None in [maker.poll() for maker in makers]:
        missed += not (tree / "nemoport" / "tokens.py").is_file()
    assert [maker.wait() for maker in makers] == [0, 0] and missed == 0


def broken_layers(tree: Path) -> str:
    command = [Path(sys.executable).with_name("lint-imports"), str(ROOT / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(command, cwd=tree, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode else ""


@pytest.mark.skipif(shutil.which("lint-imports", path=str(Path(sys.executable).parent)) is None, reason="no import-linter")
@pytest.mark.parametrize("inside", ["", "def later():\n    "])
def test_an_import_that_goes_up_breaks_the_contract(tree, inside):
    assert broken_layers(tree) == ""
    (tree / "nemoport" / "tokens.py").unlink()
    source = (ROOT / "nemoport" / "tokens.py").read_text()
    (tree / "nemoport" / "tokens.py").write_text(f"{source}\n\n{inside}import nemoport.validate.limits\n")
    assert "nemoport.tokens -> nemoport.validate.limits" in broken_layers(tree)


def test_registries_agree():
    """Whatever is registered has its name, its runtime, and limits where it is published."""
    assert all(load_runtime(name).name == name for name in runtimes())
    assert all(load_layout(name).name == name and load_layout(name).runtime in runtimes() for name in layouts())
    limits = read_limits()
    assert {one.target for one in limits.values()} <= set(runtimes())
    assert set(precisions()) - set(limits) == {"smoothed"}  # a parent, never published
    named = {f"{name}-{precision}" for name, target in targets().items() for precision in target.precisions if name != "onnx"}
    assert {variant for variant, one in limits.items() if one.target != "onnxruntime"} <= named


def test_documents_name_files_that_exist():
    for document in ("docs/architecture.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / document).read_text()
        names = re.findall(
            r"`((?:nemoport|export|quantize|calibration|validate|package|reference|tests|docs|bench)/[\w./-]*)`", text
        )
        toys = {"mine", "mine.py", "my_precision.py"}
        missing = [name for name in names if not toys & set(Path(name).parts) and not (ROOT / name).exists()]
        assert names and missing == []
