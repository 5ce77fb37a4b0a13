"""Sizes of caches that neither the graph nor a configuration states."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.ports import CHANNEL, TIME
from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    inputs = model.encoder.ports.inputs
    if CHANNEL not in inputs or examined.folder.settings.left_contexts():
        return
    caches = [inputs[key] for key in (CHANNEL, TIME) if key in inputs]
    if open_ := [port for port in caches if None in port.shape[1:]]:
        shown = ", ".join(f"{port.name} {port.tensor}" for port in open_)
        yield Found(
            model.name, "static sizes of the caches but for the batch, or left_context in a configuration", shown, WARNING
        )


CHECK = Check(
    "cache sizes that are stated nowhere",
    "Whoever runs the graph has to guess the left context. A wrong one fails, or runs and loses words once the caches are full.",
    "State the shapes of the caches in the graph's inputs, its metadata or config.json; `nemoport export` does so.",
    ("https://github.com/k2-fsa/sherpa-onnx/issues/2177",),
    in_model=find,
)
