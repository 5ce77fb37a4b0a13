"""Operators that nobody's runtime has, or that the named one lacks."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import Part
from nemoport.package.doctor.check import ERROR, WARNING, Check, Found
from nemoport.package.doctor.examined import Examined

# ONNX's own, and those that onnxruntime's usual builds have.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "ai.onnx.preview.training")


def find(examined: Examined) -> Iterator[Found]:
    for part in examined.folder.parts:
        yield from _found(examined, part)


def _found(examined: Examined, part: Part) -> Iterator[Found]:
    functions = {(one.domain, one.name) for one in part.graph.proto.functions}
    own = sorted(
        f"{domain}.{name}" for domain, name in part.graph.operators if domain not in _DOMAINS and (domain, name) not in functions
    )
    if own:
        yield Found(
            part.name, "operators of ONNX and of onnxruntime", f"{', '.join(own[:5])}: they need a library of their own", ERROR
        )
    newest = _newest_opset()
    if part.graph.opsets.get("", 0) > newest:
        yield Found(part.name, f"opset {newest} or less, the newest of onnx here", str(part.graph.opsets[""]), ERROR)
    if examined.consumer and (lacking := [name for _, name in part.graph.operators if name in examined.consumer.lacks]):
        counts = sum(number for (_, name), number in part.graph.operators.items() if name in lacking)
        yield Found(part.name, f"operators that {examined.consumer.title} has", f"{counts} x {', '.join(lacking)}", WARNING)


def _newest_opset() -> int:
    from onnx import defs

    return defs.onnx_opset_version()


CHECK = Check(
    "operators or an opset that the runtime lacks",
    "The graph does not load; or those nodes run on the processor and every chunk is copied to and fro, so that a live stream "
    "falls behind and words are dropped.",
    "Export with opset 17 to 21, and quantize in a form that the device has: QDQ or fp16 on a GPU, weight-only blocks on a CPU.",
    ("https://onnxruntime.ai/docs/reference/compatibility.html",),
    in_folder=find,
)
