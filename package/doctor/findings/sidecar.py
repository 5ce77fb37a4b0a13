"""Weights beside a graph that are missing, too short, a link, or somewhere else."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined) -> Iterator[Found]:
    problems = {file.name: file.problem for file in examined.folder.files if file.problem}
    for part in examined.folder.parts:
        if part.graph.damage:
            beside = part.name.rpartition("/")[0]
            more = [f"{name}: {why}" for name, why in problems.items() if name.rpartition("/")[0] == beside]
            yield Found(part.name, "its weights in whole files beside it", "; ".join([part.graph.damage, *more]))


CHECK = Check(
    "weights that are not beside the graph",
    "The graph does not load. Where a file was appended to or cut, an older runtime reads other weights and loses words. "
    "Links, as the Hub's cache has them, are refused by onnxruntime 1.24 and by nemoport.",
    "Download the folder with `hf download --local-dir`, and keep the files' names. Remove a sidecar before you save a graph "
    "again.",
    ("https://github.com/microsoft/onnxruntime/issues/27353", "https://github.com/onnx/onnx/issues/3991"),
    in_folder=find,
)
