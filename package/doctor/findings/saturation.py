"""Weights of 8 bits whose products overflow on processors without VNNI."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined
from nemoport.package.doctor.weights import overflowing_pairs, products, values_of


def find(examined: Examined) -> Iterator[Found]:
    for part in examined.folder.parts:
        pairs = {}
        for one in products(part.graph) if not part.graph.damage else ():
            if one.activations and "MatMul" in one.operator and one.weight not in pairs:
                pairs[one.weight] = overflowing_pairs(values_of(part.graph, one.weight), one.activations)
        wrong = {name: count for name, count in pairs.items() if count}
        if wrong:
            listed = f"{sum(wrong.values())} pairs in {len(wrong)} of {len(pairs)} weights, such as {next(iter(wrong))}"
            yield Found(part.name, "no pair of products beyond 16 bits", listed, WARNING)


CHECK = Check(
    "weights that saturate without VNNI",
    "x86 without VNNI (AVX2, AVX512 before Cascade Lake) adds two products of u8 and s8 in 16 bits, and clips the sum: words are "
    "lost there and nowhere else, so no test on a newer machine finds it.",
    "Quantize with `reduce_range=True`, or limit the pairs as nemoport does; or set `session.x64quantprecision` to 1 in "
    "onnxruntime.",
    ("https://github.com/microsoft/onnxruntime/issues/6004", "https://github.com/microsoft/onnxruntime/issues/5849"),
    in_folder=find,
)
