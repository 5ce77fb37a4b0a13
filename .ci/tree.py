"""Links the project's folders under one import name in build/tree, as [tool.setuptools.package-dir] maps them and as they are
installed: what type checkers and import-linter look at."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def link_tree(tree: Path = ROOT / "build" / "tree") -> None:
    shutil.rmtree(tree, ignore_errors=True)
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for package, folder in sorted(folders.items()):
        source, target = ROOT / folder, tree.joinpath(*package.split("."))
        ignored = shutil.ignore_patterns("__pycache__", "audio", "checkpoints", "*.md")
        shutil.copytree(source, target, ignore=ignored, copy_function=os.symlink, dirs_exist_ok=True)


if __name__ == "__main__":
    link_tree()
