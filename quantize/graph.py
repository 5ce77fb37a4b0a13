"""Operations on ONNX graphs that the precisions share: which MatMuls to quantize, types, weights, loading, the decoder."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.errors import ArtifactError, first_line
from nemoport.external_data import check_external_data
from nemoport.graph_file import graph_errors
from nemoport.text import clipped

KEPT = ("/pre_encode/", "/prompt_kernel/")  # beginnings of the names of nodes that stay in floats


def constant_matmuls(model) -> list:
    """The MatMul nodes whose second input is a weight, in graph order: every linear layer and pointwise convolution.

    The product with the projected positions, a constant for each head, is not among them. model: onnx.ModelProto.
    """
    weights = {i.name for i in model.graph.initializer if len(i.dims) == 2}
    return [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1:] and n.input[1] in weights]


def layer_matmuls(model) -> list:
    """`constant_matmuls` without those of the subsampling and of the language prompt. Raises ArtifactError if there are none.

    The subsampling stays as it is, its projection included: that MatMul reads unnormalised ReLU outputs with a heavy
    tail, all later layers read its output, and it holds under 1 % of the published model's weights. The two of the prompt
    stay as they are too: they stand behind the last layer, where nothing evens an error out any more, and in 8 bits they
    cost int8-weight 5.6 of 36.8 dB of the multilingual reference checkpoint's frames.
    """
    found = [n for n in constant_matmuls(model) if not n.name.startswith(KEPT)]
    if not found:
        raise ArtifactError(
            "The encoder has nothing to quantize.",
            expected="MatMul nodes with constant weights in the layers",
            found=f"{len(model.graph.node)} nodes, none of them such",
            todo="quantize an artifact of `nemoport export`",
        )
    return found


def values_of(initializer: Any) -> np.ndarray:
    """The values of an onnx.TensorProto. Raises ArtifactError where its bytes are not those of its shape and type."""
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(initializer)
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"The weight {clipped(initializer.name)} cannot be read.",
            expected=f"bytes of the shape {clipped(list(initializer.dims))}",
            found=clipped(first_line(error)),
            todo="build the graph again",
        ) from error


class Weights:
    """The f32 initializers of an onnx.ModelProto, by name, to read and to replace."""

    def __init__(self, model: Any):
        self._graph = model.graph
        self._initializers = {i.name: i for i in model.graph.initializer}
        self._nodes = {n.name: n for n in model.graph.node}
        self._readers = Counter(name for n in model.graph.node for name in n.input)

    def __getitem__(self, name: str) -> np.ndarray:
        return values_of(self._initializers[name])

    def of(self, matmul: str) -> np.ndarray:
        """The weight f32 [in, out] of a MatMul node, by the node's name."""
        return self[self._nodes[matmul].input[1]]

    def node(self, name: str) -> Any:
        """The onnx.NodeProto of this name."""
        return self._nodes[name]

    def replace(self, node: str, index: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replaces input `index` of a node by `change` of it: in place, or under a new name if another node reads it too."""
        from onnx import numpy_helper

        reader = self._nodes[node]
        name = reader.input[index]
        alone = self._readers[name] == 1
        new = name if alone else f"{name}.of.{node}"
        tensor = numpy_helper.from_array(change(self[name]), new)
        if alone:
            self._initializers[name].CopyFrom(tensor)
            return
        self._graph.initializer.append(tensor)
        self._initializers[new] = self._graph.initializer[-1]
        reader.input[index] = new
        self._readers[name] -= 1
        self._readers[new] += 1


def load_structure(path: Path) -> Any:
    """Loads an onnx.ModelProto without the weights in its .data file, with the type of every tensor filled in.

    Small whatever the model's size, so that shape inference stays below protobuf's 2 GB. Raises ArtifactError.
    """
    import onnx

    check_external_data(path)
    with graph_errors(path):
        model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
        names = [node.name for node in model.graph.node if node.name]
        if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):  # bytes: no UTF-8
            raise ValueError("two nodes of one name, or a name that is no text")
    return model


def load_typed(path: Path) -> Any:
    """Loads an onnx.ModelProto with its weights and the type of every tensor. Raises ArtifactError."""
    from onnx.external_data_helper import load_external_data_for_model

    model = load_structure(path)
    with graph_errors(path):
        load_external_data_for_model(model, str(path.parent))
    return model


def float_tensors(model, ops: Iterable[str]) -> list[str]:
    """Every f32 tensor, weights excepted, that a node with an operator of `ops` reads or computes. model: of `load_typed` or
    `load_structure`."""
    from onnx import TensorProto

    typed = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    floats = {v.name for v in typed if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats.difference_update(i.name for i in model.graph.initializer)
    touched = [name for n in model.graph.node if n.op_type in ops for name in (*n.input, *n.output)]
    return [name for name in dict.fromkeys(touched) if name in floats]


def metadata(model) -> dict[str, str]:
    """The metadata_props of an onnx.ModelProto."""
    return {p.key: p.value for p in model.metadata_props}


def check_quantized(found: list[str], wanted: list[str]) -> None:
    """Raises ArtifactError unless exactly the wanted nodes were quantized."""
    if sorted(found) != sorted(wanted):
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        raise ArtifactError(
            "The quantizer did not quantize what it was asked to.",
            expected=f"{len(wanted)} MatMul nodes",
            found=f"{len(found)}; missing: {missing[:3]}; unasked: {extra[:3]}",
            todo="install the onnxruntime and onnx that the constraints file pins",
        )


def copy_decoder(parent: Artifact, folder: Path) -> None:
    """Copies the parent's decoder as it is."""
    for name in (DECODER, f"{DECODER}.data"):
        shutil.copyfile(parent.folder / name, folder / name)


@contextmanager
def scratch_copy(parent: Artifact, folder: Path) -> Iterator[Path]:
    """Copies the encoder into a temporary folder and yields its path: onnxruntime's quantizers write beside their input."""
    import onnx
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    with TemporaryDirectory(dir=folder) as scratch:
        structure = load_structure(parent.encoder)
        add_pre_process_metadata(structure)  # its types are filled in, which is what the quantizers would warn about
        onnx.save(structure, Path(scratch) / ENCODER)
        shutil.copyfile(parent.folder / f"{ENCODER}.data", Path(scratch) / f"{ENCODER}.data")
        yield Path(scratch) / ENCODER
