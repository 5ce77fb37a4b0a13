"""INT8 with fixed activation ranges (QDQ): u8 asymmetric activations, s8 symmetric per-channel weights.

Runs on CPU and on GPU providers. The integer kernels of x86 processors and of WebAssembly take u8 x s8. The
outputs of the MatMuls stay f32: sums and LayerNormalization need the resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import ENCODER, Artifact
from nemoport.calibration.cache import calibrate
from nemoport.calibration.ranges import Range, RangeCollector
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.graph_file import save_model
from nemoport.progress import Progress
from nemoport.quantize.graph import check_quantized, layer_matmuls, metadata, scratch_copy
from nemoport.quantize.precision import Precision, require_corpus
from nemoport.quantize.saturation import PAIR_LIMIT, replace_weights
from nemoport.quantize.storage import halve_decoder
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus


@dataclass(frozen=True)
class Parameters:
    method: str = "percentile"  # or "minmax"
    percentile: float = 99.999
    pair_limit: int | None = PAIR_LIMIT  # see saturation.py
    signed: bool = False  # s8 activations around zero; see int8_smoothquant_signed.py
    streams: StreamParameters = field(default_factory=StreamParameters)


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Calibrates, or reuses a calibration kept on disk, and writes the four files of the variant into `folder`.

    Raises CorpusError (no audio, or too little), ArtifactError (not every layer was quantized).
    """
    import onnx

    structure = onnx.load(parent.encoder, load_external_data=False)
    matmuls = layer_matmuls(structure)
    tensors = list(dict.fromkeys(node.input[0] for node in matmuls))
    streams = CalibrationStreams.of(require_corpus(calibration), parent, parameters.streams)
    collector = calibrate(parent, streams, tensors, collect=RangeCollector, progress=progress).collector
    ranges = collector.ranges(parameters.method, parameters.percentile)
    progress(f"int8-static: {len(matmuls)} MatMuls")
    quantize(parent, folder, [n.name for n in matmuls], ranges, metadata(structure), parameters)
    halve_decoder(parent, folder)


def quantize(
    parent: Artifact,
    folder: Path,
    nodes: list[str],
    ranges: Mapping[str, Range],
    props: dict[str, str],
    parameters: Parameters,
) -> None:
    """Writes the encoder with `nodes` quantized. ranges: of the activations that they read, by tensor name; props: the
    encoder's metadata_props."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    extremes: dict[str, Any] = {tensor: (np.float32(r.low), np.float32(r.high)) for tensor, r in ranges.items()}
    with scratch_copy(parent, folder) as encoder:
        quantized, table = encoder.with_name("quantized.onnx"), encoder.with_name("ranges.json")
        # The library's own calibrators keep all activations, or drop some (CalibMaxIntermediateOutputs); its cache
        # file is the way to give it ranges. With MinMax there it takes them as they are.
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, extremes), table)
        quantize_static(
            encoder,
            quantized,
            calibration_data_reader=None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8 if parameters.signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,  # by name: the QDQ quantizer ignores MatMulConstBOnly
            use_external_data_format=True,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"], "ActivationSymmetric": parameters.signed},
            calibration_cache_path=table,
        )
        model = onnx.load(quantized)
    check_quantized(quantized_nodes(model), nodes)
    if parameters.pair_limit is not None:
        replace_weights(model, parent, nodes, parameters.pair_limit)
    save_model(model, folder / ENCODER, props)


def quantized_nodes(model) -> list[str]:
    """Names of the MatMul nodes both of whose inputs come from DequantizeLinear."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and dequantized.issuperset(n.input)]


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=1.6, held=1.55, disk=1.2),
    needs_calibration=True,
    comparisons={
        "int8-static-cold": Parameters(streams=StreamParameters(cold=True)),
        "int8-static-minmax": Parameters(method="minmax"),
        "int8-static-full-range": Parameters(pair_limit=None),
    },
)
