"""INT8 with activation ranges found at run time: signed per-channel weights, MatMuls with constant weights only.

Made from the smoothed graph (see smoothing.py): a range is that of all channels, so one outlier channel takes the resolution of
all. Each row has its own (see row_ranges.py), so that no stream depends on those that share its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from nemoport.artifact import ENCODER, Artifact
from nemoport.graph_file import save_model
from nemoport.progress import Progress
from nemoport.quantize.graph import check_quantized, layer_matmuls, metadata, scratch_copy
from nemoport.quantize.precision import Precision
from nemoport.quantize.row_ranges import by_row
from nemoport.quantize.saturation import PAIR_LIMIT, replace_weights
from nemoport.quantize.storage import halve_decoder
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Parameters:
    by_row: bool = True  # else a range is that of all frames of all streams, as onnxruntime has it
    per_channel: bool = True
    pair_limit: int | None = PAIR_LIMIT  # see saturation.py
    operators: str = "qdq"  # of a product by row, see row_ranges.py; here so that builds of other ones are made anew
    parent: str = "smoothed"


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`. Raises ArtifactError if not every layer was quantized."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    structure = onnx.load(parent.encoder, load_external_data=False)
    wanted = [node.name for node in layer_matmuls(structure)]
    progress(f"int8-dynamic: {len(wanted)} MatMuls")
    with scratch_copy(parent, folder) as encoder:
        quantized = encoder.with_name("quantized.onnx")
        quantize_dynamic(
            encoder,
            quantized,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8 if parameters.per_channel else QuantType.QUInt8,
            nodes_to_quantize=wanted,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
            per_channel=parameters.per_channel,
        )
        model = onnx.load(quantized)
    check_quantized(quantized_nodes(model), wanted)
    if parameters.pair_limit is not None:
        replace_weights(model, parent, wanted, parameters.pair_limit)
    if parameters.by_row:
        by_row(model)
    save_model(model, folder / ENCODER, metadata(structure))
    halve_decoder(parent, folder)


def quantized_nodes(model) -> list[str]:
    """The nodes that became MatMulInteger, by their names in the fp32 graph."""
    return [n.name.removesuffix("_quant") for n in model.graph.node if n.op_type == "MatMulInteger"]


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=3.1, held=3.1, disk=1.2, temporary=0.95),
    needs_calibration=False,
    made_of=attrgetter("parent"),
    comparisons={
        "int8-dynamic-plain": Parameters(parent="fp32", by_row=False),
        "int8-dynamic-by-batch": Parameters(by_row=False),
        # u8, as published ones are.
        "int8-dynamic-per-tensor": Parameters(by_row=False, parent="fp32", per_channel=False, pair_limit=None),
        "int8-dynamic-full-range": Parameters(pair_limit=None),
    },
)
