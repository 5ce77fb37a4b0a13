"""Links the project's folders under one import name in build/tree, as [tool.setuptools.package-dir] maps them and as they are
installed: what type checkers and import-linter look at."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("__pycache__", "audio", "checkpoints")


def link_tree(tree: Path = ROOT / "build" / "tree") -> None:
    """Makes `tree` of links to files. What is there already stays: processes that import from it meanwhile, or make it too,
    miss no file."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    wanted = {}
    for package, folder in folders.items():
        target = tree.joinpath(*package.split("."))
        for place, below, names in os.walk(ROOT / folder):
            below[:] = [name for name in below if name not in LEFT_OUT]
            files = [Path(place, name) for name in names if not name.endswith(".md")]
            wanted |= {target / file.relative_to(ROOT / folder): file for file in files}
    for link, file in wanted.items():
        if not link.is_symlink() or link.readlink() != file:
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = tree.with_name(f"{tree.name}-{os.getpid()}")
            fresh.symlink_to(file)
            fresh.replace(link)
    _remove_others(tree, wanted.keys())


def _remove_others(tree: Path, wanted) -> None:
    folders = {folder for link in wanted for folder in link.parents}
    for place, below, names in os.walk(tree):
        for name in set(below) - {"__pycache__"}:
            if Path(place, name) not in folders:
                shutil.rmtree(Path(place, name), ignore_errors=True)  # also of bytecode alone: it would be a namespace
        below[:] = [name for name in below if Path(place, name) in folders]
        for name in names:
            if Path(place, name) not in wanted:
                Path(place, name).unlink(missing_ok=True)


if __name__ == "__main__":
    link_tree()
