"""A guard of the logarithm that is not the model's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.foreign.graph import Graph
from nemoport.foreign.ports import FRONT_END
from nemoport.foreign.spec import USUAL_GUARD
from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined
from nemoport.package.doctor.weights import values_of


def find(examined: Examined) -> Iterator[Found]:
    own = examined.folder.settings.spec
    wanted = own.frontend.log_guard if own else USUAL_GUARD
    whose = "config.json" if own else "NeMo's default"
    for one in examined.folder.settings.of("log guard"):
        if isinstance(one.value, int | float) and not np.isclose(one.value, wanted, rtol=1e-3, atol=0.0):
            yield Found(one.place, f"{wanted:.4g}, {whose}", f"{one.value:.4g}", WARNING)
    for part in examined.folder.others:
        if part.ports.role == FRONT_END and not part.graph.damage:
            for guard in _guards(part.graph):
                if not np.isclose(guard, wanted, rtol=1e-3, atol=0.0):
                    yield Found(part.name, f"{wanted:.4g} before the logarithm, {whose}", f"{guard:.4g}", WARNING)


def _guards(graph: Graph) -> Iterator[float]:
    """The constants that are added, or are the least value, before each logarithm."""
    for node in graph.proto.graph.node:
        maker = graph.makers.get(node.input[0]) if node.op_type == "Log" else None
        if maker is not None and maker.op_type in ("Add", "Max", "Clip"):
            for name in maker.input:
                value = _constant(graph, name)
                if value is not None and value.size == 1 and value.dtype.kind == "f":
                    yield float(value.reshape(-1)[0])


def _constant(graph: Graph, name: str) -> np.ndarray | None:
    from onnx import numpy_helper

    if name in graph.initializers:
        return values_of(graph, name)
    maker = graph.makers.get(name)
    if maker is None or maker.op_type != "Constant":
        return None
    return next((numpy_helper.to_array(a.t) for a in maker.attribute if a.name == "value"), None)


CHECK = Check(
    "another guard of the logarithm",
    "What is added before the logarithm decides how silence and faint speech look. With another guard than in training quiet "
    "words are lost, and noise becomes words.",
    "Use the checkpoint's own `log_zero_guard_value`, 2^-24 (5.96e-08) unless its configuration has another.",
    ("https://github.com/NVIDIA-NeMo/Speech/pull/2869",),
    in_folder=find,
)
