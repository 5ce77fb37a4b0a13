"""A student: the integers, scales and norms that `nemoport distill` has trained, and how they get into a graph.

Weights are those of the graphs in the cache layout nemo, by the names that the exporter gives them. In the layout kv the
exporter folds two factors into weights (export/layers.py); here they are folded into the scales.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.array_file import read_arrays
from nemoport.cache_layout import KV
from nemoport.errors import ArtifactError, first_line
from nemoport.files import write_bytes
from nemoport.quantize.blocks import LIMITS, Blocks
from nemoport.quantize.graph import Weights, layer_matmuls
from nemoport.quantize.nbits import packed, unpacked
from nemoport.spec import OfflineSpec, StreamingSpec
from nemoport.text import clipped

FORMAT = 1
MOST_ARRAYS, MOST_BYTES = 1 << 16, 1 << 32
ABOUT, CODES, SCALES, GAIN, BIAS = "about", ".codes", ".scales", ".gain", ".bias"
REMAKE = "make it again by `nemoport distill`"


@dataclass(frozen=True)
class Student:
    """layers: name -> (integers i8 [in, out], scales f32 [blocks, out], bits); norms: name -> gain and bias f32 [d]; block: input
    channels of a block; steps: that it was trained for; corpus_digest: of the audio."""

    checkpoint_sha256: str
    corpus_digest: str
    steps: int
    block: int
    layers: Mapping[str, tuple[np.ndarray, np.ndarray, int]]
    norms: Mapping[str, tuple[np.ndarray, ...]]


def write_student(path: Path, student: Student) -> None:
    """Writes a student, whole or not at all: an .npz file of integers packed as the graph will hold them, scales in half
    precision, norms in f32. Raises OutputError."""
    about = {
        "format": FORMAT,
        "checkpoint_sha256": student.checkpoint_sha256,
        "corpus_digest": student.corpus_digest,
        "steps": student.steps,
        "block": student.block,
        "layers": {name: [len(values), bits] for name, (values, _, bits) in student.layers.items()},
    }
    arrays: dict[str, np.ndarray] = {ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for name, (values, scales, bits) in student.layers.items():
        arrays[name + CODES] = packed(Blocks(values, scales, student.block), bits)
        arrays[name + SCALES] = scales.T.astype(np.float16)
    for name, (gain, bias) in student.norms.items():
        arrays |= {name + GAIN: gain, name + BIAS: bias}
    content = io.BytesIO()
    np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, content.getvalue())


def read_student(path: Path, checkpoint_sha256: str) -> Student:
    """Reads the student of a checkpoint. Raises ArtifactError for what is none, was damaged, or is of another checkpoint."""
    student = _read(path)
    if student.checkpoint_sha256 != checkpoint_sha256:
        raise ArtifactError(
            f"{path} is the student of another checkpoint.",
            expected=f"of {checkpoint_sha256[:12]}, as this build is",
            found=clipped(student.checkpoint_sha256, 12),
            todo="distill this checkpoint, or name its build",
        )
    return student


def _read(path: Path) -> Student:
    arrays = read_arrays(path, REMAKE, MOST_ARRAYS, MOST_BYTES)
    try:
        about = json.loads(arrays.pop(ABOUT).tobytes())
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, where {FORMAT} is read")
        block, layers, norms = int(about["block"]), {}, {}
        for name, (rows, bits) in about["layers"].items():
            codes, scales = arrays.pop(name + CODES), arrays.pop(name + SCALES)
            shape = (*scales.shape, block * bits // 8)
            if bits not in LIMITS or codes.dtype != np.uint8 or codes.shape != shape or -(-rows // block) != shape[1]:
                raise ValueError(f"{name}: {bits} bits of {rows} channels, {codes.dtype} {list(codes.shape)}")
            made = unpacked(codes, scales, rows, bits, block)
            layers[name] = (made.values, made.scales, bits)
        for name in [one.removesuffix(GAIN) for one in arrays if one.endswith(GAIN)]:
            norms[name] = (arrays.pop(name + GAIN), arrays.pop(name + BIAS))
        finite = all(np.isfinite(one).all() for one in [*(scales for _, scales, _ in layers.values()), *sum(norms.values(), ())])
        if arrays or not layers or not finite:
            raise ValueError(
                f"{len(layers)} layers, {len(arrays)} arrays beside them" if finite else "numbers that are not finite"
            )
        return Student(str(about["checkpoint_sha256"]), str(about["corpus_digest"]), int(about["steps"]), block, layers, norms)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is no student.",
            expected="integers, scales and norms as `nemoport distill` writes them",
            found=f"{type(error).__name__}: {clipped(first_line(error))}",
            todo=REMAKE,
        ) from error


def student_blocks(model: Any, student: Student, layout: str, spec: StreamingSpec | OfflineSpec) -> dict[str, tuple[Blocks, int]]:
    """The weights of a graph's MatMul nodes: node name -> (blocks, bits). Norms are replaced in the graph.

    model: the parent's encoder, an onnx.ModelProto with its weights. Raises ArtifactError for the student of another structure.
    """
    matmuls = {_module(node.name): node for node in layer_matmuls(model)}
    weights, found = Weights(model), {}
    norms = {_module(node.name): node.name for node in model.graph.node if node.op_type == "LayerNormalization"}
    shapes = {name: weights.of(node.name).shape for name, node in matmuls.items()}
    differing = [name for name, (values, *_) in student.layers.items() if shapes.get(name) != values.shape]
    if differing or shapes.keys() != student.layers.keys() or not student.norms.keys() <= norms.keys():
        missing = sorted(shapes.keys() ^ student.layers.keys()) or differing or sorted(student.norms.keys() - norms.keys())
        raise ArtifactError(
            "The student is of another model.",
            expected=f"weights of the {len(shapes)} linear layers of this encoder",
            found=f"{len(student.layers)} layers; differing: {', '.join(missing[:3])}",
            todo="distill this checkpoint",
        )
    for name, (values, scales, bits) in student.layers.items():
        found[matmuls[name].name] = (Blocks(values, scales * np.float32(_factor(name, layout, spec)), student.block), bits)
    for name, pair in student.norms.items():
        for index, values in enumerate(pair, 1):
            weights.replace(norms[name], index, lambda _, values=values: values.astype(np.float32))
    return found


def _module(node: str) -> str:
    """The exporter's name of the module that a node is of."""
    return node.rpartition("/")[0].strip("/").replace("/", ".")


def _factor(name: str, layout: str, spec: StreamingSpec | OfflineSpec) -> float:
    """What the exporter multiplies a layer's weights by in a cache layout."""
    if layout != KV:
        return 1.0
    if name.endswith(".linear2"):
        return 0.5
    return 1.0 / math.sqrt(spec.d_model // spec.n_heads) if name.endswith(".linear_q") else 1.0
