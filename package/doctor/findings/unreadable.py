"""Files that cannot be read: git-lfs pointers, links to elsewhere, what is no graph and no JSON; no encoder."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined) -> Iterator[Found]:
    for name, why in examined.folder.broken.items():
        yield Found(name, "the file itself, whole", why)
    if not examined.folder.models:
        roles = ", ".join(f"{part.name}: {part.ports.role}" for part in examined.folder.parts)
        yield Found(
            examined.folder.path.name, "an encoder: a graph from features to frames", roles or "no graph that can be read"
        )


CHECK = Check(
    "a file that cannot be read",
    "A program that does not find a graph takes another precision, or fails; one that does not find its settings takes its own.",
    "Download it again: `git lfs pull`, or `hf download --local-dir`, which makes no links.",
    ("https://github.com/microsoft/onnxruntime/issues/27353",),
    in_folder=find,
)
