"""Copies of a build's files: gigabytes without reading them, where the file system can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from nemoport.artifact import Artifact

_BLOCK_BYTES = 1 << 30


def copy_file(source: Path, target: Path) -> None:
    """Makes `target` a file of its own, mode 644: shared blocks on btrfs and xfs, else a copy by the kernel. Raises OSError.

    Not a hard link: onnx refuses external data with several links, so that linking would make the build's own graphs
    unreadable to the next quantizer. Not a symlink either: onnxruntime may refuse those.
    """
    with open(source, "rb") as reader, open(target, "wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        try:
            done = 0
            while done < size:
                copied = os.copy_file_range(reader.fileno(), writer.fileno(), min(_BLOCK_BYTES, size - done))
                if not copied:
                    break
                done += copied
        except (AttributeError, OSError):  # not Linux; across file systems on an old kernel; or a real fault, which
            reader.seek(0)  # the plain copy meets again
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)
    target.chmod(0o644)


def copy_present(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copies those of the named files that are in the folder `source` into the folder `target`. Raises OSError."""
    for name in names:
        if (source / name).is_file():
            copy_file(source / name, target / name)


def copy_artifact(artifact: Artifact, target: Path) -> None:
    """Copies an artifact's manifest and every file in it into the new folder `target`. Raises OSError."""
    target.mkdir()
    for name in ["manifest.json", *(entry.path for entry in artifact.manifest.files.values())]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)  # some targets' files are folders
        copy_file(artifact.folder / name, target / name)
