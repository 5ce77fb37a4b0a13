"""Weights of the encoder in 8 bits: symmetric, a scale for each output channel, data-free (nncf).

They are the weights of the layers' MatMuls, as in the ONNX variants: the subsampling and the language prompt stay in floats
(quantize/graph.py has the reasons), and so do the positions, which are folded constants.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemoport.quantize.graph import check_quantized, layer_matmuls

CANDIDATES = ("MatMul", "Convolution", "GroupConvolution", "Gather")  # whose weights nncf compresses unless they are ignored


def compress(model: Any, onnx_graph: Path) -> Any:
    """Compresses the weights of an encoder, openvino.Model, and returns it.

    onnx_graph: the graph that the model was converted from, whose node names are those of its operations. Raises ArtifactError
    if nncf did not compress exactly the layers' MatMuls.
    """
    import nncf
    import onnx
    import openvino
    from openvino import opset13 as opset

    wanted = [node.name for node in layer_matmuls(onnx.load(onnx_graph, load_external_data=False))]
    for product in [op for op in model.get_ops() if op.get_friendly_name() in wanted]:
        # nncf is given each product alone: it cannot read a graph with a Loop, which the encoder of an offline model has.
        weight = product.input_value(1).get_node()
        values = openvino.op.Constant(weight.data)
        values.set_friendly_name(weight.get_friendly_name())
        frames = opset.parameter(product.get_input_partial_shape(0), openvino.Type.f32)
        alone = opset.matmul(frames, values, **product.get_attributes())
        apart = openvino.Model([alone], [frames])  # pyright: ignore[reportGeneralTypeIssues]  # stubs of the C++ class
        (one,) = apart.get_results()
        nncf.compress_weights(apart, mode=nncf.CompressWeightsMode.INT8_SYM)
        model.set_rt_info(apart.get_rt_info(["nncf"]), ["nncf"])
        product.input(1).replace_source_output(one.input_value(0).get_node().input_value(1))
    check_quantized(compressed(model), wanted)
    return model


def compressed(model: Any) -> list[str]:
    """Names of the operations of an openvino.Model that read an 8-bit weight."""
    return [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in CANDIDATES and _in_8_bits(op)]


def _in_8_bits(operation: Any) -> bool:
    """Whether the weight of an operation is 8-bit, behind its scale and the scale's conversion from half precision."""
    node = operation.input_value(1).get_node()
    while node.get_type_name() in ("Multiply", "Convert", "Reshape", "Subtract"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")
