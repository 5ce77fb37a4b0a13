"""Files that cannot be read: git-lfs pointers, links to elsewhere, what is no graph and no JSON."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined) -> Iterator[Found]:
    for name, why in examined.folder.broken.items():
        yield Found(name, "the file itself, whole", why)


CHECK = Check(
    "a file that cannot be read",
    "A program that does not find a graph takes another precision, or fails; one that does not find its settings takes its own.",
    "Download it again: `git lfs pull`, or `hf download --local-dir`, which makes no links.",
    ("https://github.com/microsoft/onnxruntime/issues/27353",),
    in_folder=find,
)
