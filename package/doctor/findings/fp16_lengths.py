"""Lengths that are computed in 16-bit floats."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.graph import Graph
from nemoport.foreign.ports import LENGTH, SIGNAL
from nemoport.package.doctor.check import ERROR, NOTE, Check, Found
from nemoport.package.doctor.examined import Examined

EXACT = 2048  # whole numbers up to it are exact in fp16; in bf16 up to 256
_HALVES = {10: "float16", 16: "bfloat16"}  # onnx.TensorProto's numbers
_ARITHMETIC = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Floor",
    "Ceil",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Identity",
    "Min",
    "Max",
    "Clip",
    "Neg",
)


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    port = model.encoder.ports.inputs.get(LENGTH)
    if port is None:
        return
    casts = list(_halves(model.encoder.graph, port.name))
    if casts:
        window = model.encoder.ports.inputs[SIGNAL].shape[2]
        short = model.encoder.ports.streaming or (window is not None and window <= EXACT)
        found = f"{casts[0][1]}, behind {casts[0][0]}"
        yield Found(model.name, f"lengths in int64 or float32: fp16 is exact to {EXACT} frames", found, NOTE if short else ERROR)


def _halves(graph: Graph, name: str) -> Iterator[tuple[str, str]]:
    """The Casts to 16-bit floats of what is computed from a length alone: node, type."""
    seen, names = set(), [name]
    while names:
        for node in graph.readers.get(names.pop(), []):
            if node.op_type == "Cast":
                to = next((a.i for a in node.attribute if a.name == "to"), 0)
                if to in _HALVES and _is_arithmetic(graph, node.output[0]):
                    yield node.name or "a Cast", _HALVES[to]
            elif node.op_type not in _ARITHMETIC:
                continue
            fresh = [made for made in node.output if made not in seen]
            seen.update(fresh)
            names += fresh


def _is_arithmetic(graph: Graph, name: str) -> bool:
    """Whether a number is computed from it: the subsampling's length. A mask that is cast to multiply features is none."""
    return any(node.op_type in ("Add", "Sub", "Div", "Floor", "Ceil", "Clip", "Mul") for node in graph.readers.get(name, []))


CHECK = Check(
    "lengths computed in fp16",
    "Whole numbers are exact in fp16 up to 2048 only, and end at 65504. In a recording of more than 20 s the number of valid "
    "frames is wrong: its end is cut off, or padding is decoded.",
    "Keep the length's arithmetic in float32: block its nodes in the conversion, found by following the length through the "
    "graph.",
    ("https://github.com/christopherthompson81/vernacula/pull/175", "https://github.com/vadimkantorov/convasr/pull/73"),
    in_model=find,
)
