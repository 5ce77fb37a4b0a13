"""An encoder graph of ours in torch, node by node: for a GPU where onnxruntime's CUDA provider is missing.

`TorchGraph` takes the place of an onnxruntime session in `OnnxSession`. Products and convolutions run in the type that the graph
has, so fp16 is fp16 there, and fixed ranges of INT8 are rounded as the graph has them, in floats. It shows what numbers come out,
and not how fast a runtime would be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16}
Node = Any  # onnx.NodeProto


def attributes(node: Node) -> dict[str, Any]:
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def conv(x, weight, bias=None, *, pads=(), strides=(), dilations=(), group=1, **_):
    dims = x.dim() - 2
    pads = list(pads) or [0] * (2 * dims)
    around = [value for i in reversed(range(dims)) for value in (pads[i], pads[i + dims])]
    run = functional.conv1d if dims == 1 else functional.conv2d
    return run(functional.pad(x, around), weight, bias, tuple(strides) or 1, 0, tuple(dilations) or 1, group)


def cut(x, starts, ends, axes=None, steps=None):
    count = len(starts)
    chosen = range(count) if axes is None else axes.tolist()
    by = [1] * count if steps is None else steps.tolist()
    for axis, start, end, step in zip(chosen, starts.tolist(), ends.tolist(), by, strict=True):
        kept = range(*slice(start, end, step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(kept, device=x.device)) if step < 0 else x.narrow(axis, kept.start, len(kept))
    return x


def reshape(x, shape, **_):
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


def divide(a, b):
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def layer_norm(x, scale, bias=None, *, axis=-1, epsilon=1e-5, **_):
    return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def along(values, x, axis):
    """values of one axis, for a product with x."""
    if values.dim() != 1:
        return values
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def quantize(x, scale, zero, *, axis=1, **_):
    low, high = (-128, 127) if zero.dtype == torch.int8 else (0, 255)
    return (torch.round(x / along(scale, x, axis)) + along(zero, x, axis)).clamp(low, high).to(zero.dtype)


def dequantize(x, scale, zero=None, *, axis=1, **_):
    offset = 0 if zero is None else along(zero, x, axis).to(scale.dtype)
    return (x.to(scale.dtype) - offset) * along(scale, x, axis)


def unsqueeze(x, axes):
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def pad(x, pads, value=None, *_, mode=b"constant"):
    half = x.dim()
    amounts = pads.tolist()
    around = [amount for i in reversed(range(half)) for amount in (amounts[i], amounts[i + half])]
    return functional.pad(x, around, value=0 if value is None else value.item())


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": divide, "Neg": torch.neg, "MatMul": torch.matmul,
    "Sigmoid": torch.sigmoid, "Relu": torch.relu, "Identity": lambda x: x, "Conv": conv, "LayerNormalization": layer_norm,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis), "Less": torch.lt, "Greater": torch.gt, "Equal": torch.eq,
    "GreaterOrEqual": torch.ge, "And": torch.logical_and, "Or": torch.logical_or, "Where": torch.where, "Slice": cut,
    "Reshape": reshape, "Transpose": lambda x, perm: x.permute(*perm), "Unsqueeze": unsqueeze, "Pad": pad,
    "Squeeze": lambda x, axes: x.squeeze(tuple(axes.tolist())), "Concat": lambda *x, axis: torch.cat(x, axis),
    "Split": lambda x, sizes, axis=0: torch.split(x, sizes.tolist(), axis), "Cast": lambda x, to, **_: x.to(TYPES[to]),
    "Expand": lambda x, shape: x * torch.ones(shape.tolist(), dtype=x.dtype, device=x.device) if x.dtype != torch.bool
    else x | torch.zeros(shape.tolist(), dtype=torch.bool, device=x.device),
    "Shape": lambda x, start=0, end=None: torch.tensor(x.shape[start:end], device=x.device),
    "Range": lambda a, b, step: torch.arange(a.item(), b.item(), step.item(), device=a.device, dtype=a.dtype),
    "GatherElements": lambda x, index, axis=0: torch.gather(x, axis, index),
    "ReduceSum": lambda x, axes=None, keepdims=1, **_: x.sum(axes.tolist() if axes is not None else None, bool(keepdims)),
    "Clip": lambda x, low=None, high=None: x.clamp(low, high), "QuantizeLinear": quantize, "DequantizeLinear": dequantize,
}  # fmt: skip


def gather(x, index, axis=0):
    axis %= x.dim()
    return x[(slice(None),) * axis + (index,)]


OPERATORS["Gather"] = gather


class TorchGraph:
    """Runs a graph on a torch device."""

    def __init__(self, path: Path, device: str):
        import onnx
        from onnx import numpy_helper

        model = onnx.load(path)
        self._device, self._numpy = device, numpy_helper.to_array
        self._nodes = [(node, attributes(node)) for node in model.graph.node]
        self._weights = {one.name: self._tensor(numpy_helper.to_array(one)) for one in model.graph.initializer}
        self._inputs = [SimpleNamespace(name=one.name) for one in model.graph.input]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self._device)

    def get_inputs(self) -> list[SimpleNamespace]:
        return self._inputs

    @torch.inference_mode()
    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        values: dict[str, Any] = {"": None, **self._weights, **{name: self._tensor(array) for name, array in feeds.items()}}
        for node, given in self._nodes:
            if node.op_type == "Constant":
                found = self._tensor(self._numpy(given["value"]))
            elif node.op_type == "ConstantOfShape":
                filled = self._tensor(self._numpy(given["value"])) if "value" in given else torch.zeros(1, device=self._device)
                found = filled.expand(values[node.input[0]].tolist())
            else:
                found = OPERATORS[node.op_type](*(values[name] for name in node.input), **given)
            for name, value in zip(node.output, found if isinstance(found, tuple) else (found,), strict=False):
                values[name] = value
        return [values[name].cpu().numpy() for name in outputs]
