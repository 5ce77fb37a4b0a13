"""A subsampling whose convolutions run in integers."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined
from nemoport.package.doctor.weights import products


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    found = [one for one in products(model.encoder.graph) if one.subsampling and one.activations]
    if found:
        listed = f"{len(found)} in 8 bits, such as {found[0].node}"
        yield Found(model.name, "convolutions of the subsampling in floats", listed, WARNING)


CHECK = Check(
    "a quantized subsampling",
    "The convolutions in front see the features themselves, whose range is that of the loudest frame. A published attempt to "
    "quantize them statically gave an empty transcript; conversions that quantize every operator lose the most words.",
    "Quantize MatMuls alone (`op_types_to_quantize=['MatMul']`), or exclude the nodes of pre_encode.",
    (
        "https://github.com/k2-fsa/sherpa-onnx/issues/3782",
        "https://huggingface.co/Olicorne/parakeet-tdt-0.6b-v3-smoothquant-onnx",
    ),
    in_model=find,
)
