"""The quantized products of a stranger's graph: where their weights are, their scales, and their activations' type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemoport.foreign.graph import Graph
from nemoport.graph_file import external_tensors

_QUANTIZED = (np.int8, np.uint8)
# operator -> places of activation, weight, weight's scale among the inputs; None: behind the product
_PRODUCTS = {
    "MatMulInteger": (0, 1, None),
    "DynamicQuantizeMatMul": (0, 1, 2),
    "MatMulIntegerToFloat": (0, 1, 3),
    "QLinearMatMul": (0, 3, 4),
    "ConvInteger": (0, 1, None),
    "QLinearConv": (0, 3, 4),
}
_FLOAT_PRODUCTS = ("MatMul", "Gemm", "Conv", "FusedMatMul")
_FORWARD, _BACKWARD = 3, 2  # nodes between an integer product and its scale


@dataclass(frozen=True)
class Product:
    """A product with a weight of 8 bits. dims: the weight's; scales: how many scales it has, None where they are not found;
    activations: numpy's type of what it is multiplied with, "" for floats."""

    node: str
    operator: str
    weight: str
    dims: tuple[int, ...]
    scales: int | None
    activations: str

    @property
    def subsampling(self) -> bool:
        """Whether it is a convolution in two dimensions, which only the subsampling has."""
        return "Conv" in self.operator and len(self.dims) == 4


def products(graph: Graph) -> Iterator[Product]:
    """Yields each product of the outer graph whose weight is an initializer of 8 bits."""
    for node in graph.proto.graph.node:
        if node.op_type in _PRODUCTS:
            activation, weight, scale = _PRODUCTS[node.op_type]
            if weight < len(node.input) and (tensor := graph.initializers.get(node.input[weight])) is not None:
                scales = _behind(graph, node) if scale is None else _elements(graph, node.input[scale])
                yield _product(node, tensor, scales, _activations(graph, node, activation))
        elif node.op_type in _FLOAT_PRODUCTS and len(node.input) > 1:
            yield from _dequantized(graph, node)


def _dequantized(graph: Graph, node: Any) -> Iterator[Product]:
    values, weight = (_dequantizer(graph, name) for name in node.input[:2])
    tensor = graph.initializers.get(weight.input[0]) if weight is not None else None
    if weight is None or tensor is None:
        return
    scales = _elements(graph, weight.input[1])
    kind = ""
    if values is not None and values.input[0] not in graph.initializers:
        zero = graph.initializers.get(values.input[2]) if len(values.input) > 2 else None
        kind = _dtype(zero) if zero is not None else "uint8"
    yield _product(node, tensor, scales, kind)


def _dequantizer(graph: Graph, name: str) -> Any:
    """The DequantizeLinear that makes a tensor, through what only moves it."""
    for _ in range(4):
        node = graph.makers.get(name)
        if node is None or node.op_type == "DequantizeLinear":
            return node
        if node.op_type not in ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Cast"):
            return None
        name = node.input[0]
    return None


def _product(node: Any, tensor: Any, scales: int | None, activations: str) -> Product:
    return Product(node.name or node.op_type, node.op_type, tensor.name, tuple(tensor.dims), scales, activations)


def _activations(graph: Graph, node: Any, place: int) -> str:
    maker = graph.makers.get(node.input[place])
    zero = None
    if maker is not None and maker.op_type == "QuantizeLinear" and len(maker.input) > 2:
        zero = graph.initializers.get(maker.input[2])
    return _dtype(zero) if zero is not None else "uint8"  # DynamicQuantizeLinear has no other


def _dtype(tensor: Any) -> str:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).name


def _elements(graph: Graph, name: str) -> int | None:
    tensor = graph.initializers.get(name)
    return None if tensor is None else int(np.prod(tensor.dims, dtype=np.int64))


def _behind(graph: Graph, node: Any) -> int | None:
    """The most elements that a constant factor behind an integer product has: the weight's scale, alone or times the
    activations'."""
    sizes, names = [], list(node.output)
    for _ in range(_FORWARD):
        readers = [reader for name in names for reader in graph.readers.get(name, [])]
        for reader in readers:
            if reader.op_type == "Mul":
                sizes += [size for name in reader.input for size in _constants(graph, name, _BACKWARD)]
        names = [name for reader in readers if reader.op_type in ("Cast", "Mul") for name in reader.output]
    return max(sizes, default=None)


def _constants(graph: Graph, name: str, levels: int) -> Iterator[int]:
    if (size := _elements(graph, name)) is not None:
        yield size
    elif levels and (maker := graph.makers.get(name)) is not None and maker.op_type in ("Mul", "Unsqueeze", "Reshape", "Cast"):
        for one in maker.input:
            yield from _constants(graph, one, levels - 1)


def values_of(graph: Graph, name: str) -> np.ndarray:
    """Reads a weight, from the graph or from beside it, where `graph.damage` is ""."""
    from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

    copy = TensorProto()  # reading would keep the values in the graph
    copy.CopyFrom(graph.initializers[name])
    if copy.data_location == TensorProto.EXTERNAL:
        # onnx refuses a file of several hard links, which packages beside each other have. `read_graph` has checked the places.
        (place,) = external_tensors(ModelProto(graph=GraphProto(initializer=[copy])))
        with open(graph.path.parent / place.file, "rb") as file:
            file.seek(place.offset)
            content = file.read(place.bytes)
        copy.data_location, copy.raw_data = TensorProto.DEFAULT, content
        del copy.external_data[:]
    return numpy_helper.to_array(copy)


def overflowing_pairs(weight: np.ndarray, activations: str) -> int:
    """Counts pairs of neighbours along the inner axis of an s8 weight [in, out] whose products with some two activations sum to
    more than s16 holds."""
    if weight.dtype != np.int8 or weight.ndim != 2 or activations not in ("uint8", "int8"):
        return 0
    x, s16 = np.iinfo(activations), np.iinfo(np.int16)
    even = len(weight) // 2 * 2
    first, second = weight[0:even:2].astype(np.int32), weight[1:even:2].astype(np.int32)
    high = np.maximum(first * x.max, first * x.min) + np.maximum(second * x.max, second * x.min)
    low = np.minimum(first * x.max, first * x.min) + np.minimum(second * x.max, second * x.min)
    return int(np.count_nonzero((high > s16.max) | (low < s16.min)))
