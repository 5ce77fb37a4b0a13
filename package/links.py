"""Packages of one build beside each other: files that are equal are one file on the disk, under several names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nemoport.files import scratch_folder
from nemoport.package.manifest import PackageManifest

LEAST_BYTES = 1 << 16  # smaller files are not worth a link


def link_equal(folders: Sequence[Path]) -> int:
    """Replaces each file of these packages that an earlier one of them holds too by a hard link to it, as their manifests have
    sizes and hashes. Returns the bytes that this frees. Within a package nothing is linked.

    Where the file system has no such links, or the folders are on several, a file stays as it is. A linked file is changed in all
    packages by who writes into it; onnx refuses to load weights that have several links, onnxruntime does not.
    """
    first: dict[tuple[str, int], Path] = {}
    freed = 0
    for folder in folders:
        own: dict[tuple[str, int], Path] = {}
        for entry in PackageManifest.read(folder).files:
            path, content = folder / entry.path, (entry.sha256, entry.bytes)
            known = first.get(content)
            if known is None:
                own.setdefault(content, path)
            elif entry.bytes >= LEAST_BYTES and not known.samefile(path) and _link(known, path, folder.parent):
                freed += entry.bytes
        first |= own
    return freed


def _link(known: Path, path: Path, beside: Path) -> bool:
    with scratch_folder(beside) as scratch, suppress(OSError):
        os.link(known, scratch / "link")
        os.replace(scratch / "link", path)
        return True
    return False
