"""Weights of the encoder in 8 bits: symmetric, a scale for each output channel, data-free (nncf).

The MatMuls of the layers, the same as those of the ONNX variants: the subsampling and the language prompt stay in floats
(quantize/graph.py has the reasons), and so do the positions, which are constants behind no weight.
"""

from __future__ import annotations

from pathlib import Path

from nemoport.quantize.graph import check_quantized, layer_matmuls

CANDIDATES = ("MatMul", "Convolution", "GroupConvolution", "Gather")  # what nncf would look for weights in


def compress(model, onnx_graph: Path):
    """model: openvino.Model of `onnx_graph`, whose nodes gave its operations their names. Raises ArtifactError where nncf
    compressed something else than it was asked to."""
    import nncf
    import onnx

    wanted = [node.name for node in layer_matmuls(onnx.load(onnx_graph, load_external_data=False))]
    others = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in CANDIDATES]
    made = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT8_SYM,
        ignored_scope=nncf.IgnoredScope(names=sorted(set(others) - set(wanted)), validate=False),
    )
    check_quantized(compressed(made), wanted)
    return made


def compressed(model) -> list[str]:
    """Names of the operations that read an 8-bit weight."""
    return [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in CANDIDATES and _in_8_bits(op)]


def _in_8_bits(operation) -> bool:
    """Behind its scale, and behind the half precision of that."""
    node = operation.input_value(1).get_node()
    while node.get_type_name() in ("Multiply", "Convert", "Reshape", "Subtract"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")
