"""Weights of 8 bits with one scale for all of their channels."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined
from nemoport.package.doctor.weights import products

SMALL = 4096  # elements; a smaller weight is not worth its scales


def find(examined: Examined) -> Iterator[Found]:
    for part in examined.folder.parts:
        found = [one for one in products(part.graph) if len(one.dims) >= 2 and _size(one.dims) >= SMALL]
        single = [one for one in found if one.scales == 1]
        if single:
            listed = f"one for {len(single)} of {len(found)} weights, such as {single[0].weight}"
            yield Found(part.name, "a scale for each output channel or block", listed, WARNING)


def _size(dims: tuple[int, ...]) -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size


CHECK = Check(
    "one scale for a whole weight",
    "The channel with the largest weight takes the resolution of all others: in public reports word errors doubled (German 3.95 "
    "to 8.62 %, a conformer 2.64 to 4.81 %).",
    "Quantize with `per_channel=True`, or by blocks (MatMulNBits).",
    ("https://github.com/DevEmperor/DictateKeyboard/issues/414", "https://github.com/k2-fsa/icefall/pull/995"),
    in_folder=find,
)
