"""Float inputs and outputs of 16 bits: the Casts around an fp16 graph are missing."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.interface import F16, F32
from nemoport.package.doctor.check import ERROR, WARNING, Check, Found
from nemoport.package.doctor.examined import Examined

_HALVES = (F16, "bfloat16")


def find(examined: Examined) -> Iterator[Found]:
    known = examined.consumer
    allowed = known.floats if known else (F32,)
    for part in examined.folder.parts:
        tensors = {**part.graph.interface.inputs, **part.graph.interface.outputs}
        halves = [name for name, one in tensors.items() if one.dtype in _HALVES]
        mixed = halves and any(one.dtype == F32 for one in tensors.values())
        wrong = [name for name in halves if tensors[name].dtype not in allowed]
        if wrong:
            whose = f", which {known.title} feeds" if known else ", as fp32 has them"
            yield Found(
                part.name, f"float32 inputs and outputs{whose}", f"{tensors[wrong[0]].dtype}: {', '.join(wrong)}", WARNING
            )
        elif mixed:
            yield Found(
                part.name, "one type of floats, by which the program knows the graph", f"float32 but {', '.join(halves)}", ERROR
            )


CHECK = Check(
    "Casts that are missing around an fp16 graph",
    "A program that feeds float32 fails at the first run, or reads pairs of 16-bit numbers as one: noise. Caches in fp16 are "
    "rounded anew in every chunk.",
    "Convert with `keep_io_types=True`.",
    ("https://github.com/christopherthompson81/vernacula/issues/172",),
    in_folder=find,
)
