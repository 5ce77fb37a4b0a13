"""The files of a stranger's folder: what may be read of it, and what may not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nemoport.errors import ArtifactError

MOST_FILES = 5000
MOST_LEVELS = 3  # folders in folders; packages have one or two
LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class File:
    """A file below a folder. name: its path in the folder, with /; problem: why it is not read, "" for a plain file."""

    name: str
    path: Path
    problem: str = ""


def list_files(folder: Path) -> list[File]:
    """Lists the files below a folder in the order of their names, without hidden ones. A link counts as a file where it leads
    to one of the same folder, or of the Hub cache that the folder is part of. Raises ArtifactError for what is no folder, holds
    nothing, or too much."""
    if not folder.is_dir():
        raise ArtifactError(
            f"There is no folder {folder}.",
            expected="a folder with ONNX graphs, or organisation/name of one on the Hub",
            found="a file" if folder.exists() else "nothing",
            todo="name the folder that holds the graphs",
        )
    found = []
    for file in _walk(folder, folder, 0):
        found.append(file)
        if len(found) > MOST_FILES:
            raise ArtifactError(
                f"{folder} holds more than {MOST_FILES} files.",
                expected="the folder of a package",
                found="a larger one",
                todo="name the folder that holds the graphs",
            )
    return sorted(found, key=lambda file: file.name)


def shared_files(folder: Path) -> list[File]:
    """Lists what the variants of nemoport's own packages share, where `folder` is one of them: it lies beside the folder."""
    whole, shared = folder.resolve().parent, ("config.json", "shared/tokens.txt", "shared/spelling.json")
    if not (folder / "manifest.json").is_file() or not (whole / "config.json").is_file():
        return []
    return [File(f"../{name}", whole / name, _problem(whole, whole / name)) for name in shared if (whole / name).exists()]


def _walk(root: Path, folder: Path, level: int) -> Iterator[File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if level < MOST_LEVELS:
                    yield from _walk(root, path, level + 1)
            else:
                yield File(path.relative_to(root).as_posix(), path, _problem(root, path))


def _problem(root: Path, path: Path) -> str:
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        return "a link to nothing"
    if path.is_symlink() and not any(target.is_relative_to(place) for place in _places(root)):
        return "a link to outside of the folder"
    if not target.is_file():
        return "a link to nothing" if path.is_symlink() else "no plain file"
    try:
        with open(target, "rb") as stream:
            return "a git-lfs pointer, not the file itself" if stream.read(len(LFS)) == LFS else ""
    except OSError as error:
        return f"not readable: {error.strerror}"


def _places(root: Path) -> list[Path]:
    """Where links may lead: the folder, and of the Hub's cache (snapshots/REVISION beside blobs/) its files."""
    whole = root.resolve()
    snapshots = [place for place in (whole, *whole.parents) if place.parent.name == "snapshots"]
    return [whole, *(place.parent.parent / "blobs" for place in snapshots)]
