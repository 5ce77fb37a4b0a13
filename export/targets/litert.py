"""LiteRT: `encoder.tflite` with a signature for each window of each lookahead, `decoder.tflite` with one for a token and one
for each number of frames, and `litert.json`, which tells their names, types and shapes. Signatures share their weights.

Graphs are static and hear one stream. fp16 halves the weights of products and convolutions; int8 gives those of the encoder's
layers 8 bits, a scale for each row, and the activations as many, a scale for each frame, found at run time
(ai-edge-quantizer's dynamic_wi8_afp32). Subsampling, prompt and decoder stay in floats, as in the ONNX variants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.contract import PROMPT
from nemoport.errors import UsageError
from nemoport.files import write_json
from nemoport.spec import ModelSpec, StreamingSpec

if TYPE_CHECKING:
    from nemoport.artifact import Artifact
    from nemoport.export.targets import Progress, Source

EXTRA, PACKAGES = "litert", ("ai_edge_litert",)
CONVERTERS = ("litert_torch", "ai_edge_quantizer")
ENCODER, DECODER, INTERFACE = "encoder.tflite", "decoder.tflite", "litert.json"
F32, I32 = "float32", "int32"
LAYERS = ".*ConformerLayer.*"  # in the names of what the encoder's layers compute

Tensors = dict[str, list]  # name -> [type, shape]


@dataclass(frozen=True)
class Parameters:
    """weights: f32; f16; or i8, of the encoder's layers, with activations of as many bits."""

    weights: str


PRECISIONS = {"fp32": Parameters("f32"), "fp16": Parameters("f16"), "int8": Parameters("i8")}
NEEDS_CALIBRATION = ()


def window_name(lookahead: int, first: bool) -> str:
    """Signature of an encoder window."""
    return f"{'first' if first else 'later'}_{lookahead}"


def joint_name(frames: int) -> str:
    return f"joint_{frames}"


def joint_frames(spec: StreamingSpec) -> list[int]:
    """Ascending: one frame, and the chunk of each lookahead."""
    return sorted({1, *(lookahead + 1 for lookahead in spec.lookaheads)})


def interface(spec: ModelSpec) -> dict[str, dict[str, dict[str, Tensors]]]:
    """File -> signature -> `inputs` and `outputs`."""
    encoder = {
        window_name(lookahead, first): _window(spec, lookahead, first)
        for lookahead in spec.streaming.lookaheads
        for first in (True, False)
    }
    decoding, width = spec.decoding, spec.streaming.d_model
    states = {f"input_states_{i}": [F32, [*decoding.state_shape(1)]] for i in (1, 2)}
    prediction = {"prediction": [F32, [1, decoding.joint_hidden]]}
    predict = {
        "inputs": {"target": [I32, [1]], **states},
        "outputs": prediction | {name.replace("input", "output"): tensor for name, tensor in states.items()},
    }
    joints = {
        joint_name(frames): {
            "inputs": {"encoder_outputs": [F32, [1, frames, width]], **prediction},
            "outputs": {"scores": [F32, [1, frames, decoding.n_scores]]},
        }
        for frames in joint_frames(spec.streaming)
    }
    return {ENCODER: encoder, DECODER: {"predict": predict, **joints}}


def cache_tensors(spec: StreamingSpec) -> Tensors:
    context = [spec.n_layers, spec.left_context_enc_frames, spec.d_model]
    return {
        "cache_key": [F32, context],
        "cache_value": [F32, context],
        "cache_conv": [F32, [spec.n_layers, spec.conv_cache_frames, spec.d_model]],
        "cache_len": [I32, [1]],
    }


def _window(spec: ModelSpec, lookahead: int, first: bool) -> dict[str, Tensors]:
    streaming, frames = spec.streaming, lookahead + 1
    added = [F32, [streaming.n_layers, frames, streaming.d_model]]
    mel_frames = streaming.window_mel_frames(lookahead, first=first)
    return {
        "inputs": {
            "audio_signal": [F32, [1, spec.frontend.n_mels, mel_frames]],
            "length": [I32, [1]],
            **({} if first else cache_tensors(streaming)),
            **({PROMPT: [I32, [1]]} if spec.prompt else {}),
        },
        "outputs": {
            "outputs": [F32, [1, frames, streaming.d_model]],
            "encoded_lengths": [I32, [1]],
            **{name: added for name in ("key_new", "value_new", "conv_new")},
        },
    }


def convert(source: Source, folder: Path, parameters: Parameters, progress: Progress) -> dict[str, str]:
    """Raises UsageError for an offline model, and where the converter is not installed; CheckpointError."""
    checkpoint, spec = source.checkpoint, source.checkpoint.spec
    if spec.streaming is None:
        raise UsageError(
            "An offline model cannot be exported for LiteRT.",
            expected="a cache-aware model, whose windows have few sizes: the graphs are static",
            found=f"{spec.kind}, which hears recordings of any length",
            todo="export it to ONNX",
        )
    if absent := [package for package in CONVERTERS if find_spec(package) is None]:
        raise UsageError(
            "Converting to LiteRT needs packages that are not installed.",
            expected=", ".join(CONVERTERS),
            found=f"no {', no '.join(absent)}",
            todo="`make setup-litert` makes an environment that has them: one of them asks for other versions than NeMo",
        )
    from nemoport.export.litert import convert_graphs, quantize
    from nemoport.export.targets import export_target

    if parameters == PRECISIONS["fp32"]:
        convert_graphs(checkpoint, folder, progress)
    else:
        floats = export_target(checkpoint, source.build, "litert", "fp32", None, progress=progress)
        quantize(floats.folder, folder, parameters.weights)
    write_json(folder / INTERFACE, interface(spec))
    return {"encoder": ENCODER, "decoder": DECODER, "interface": INTERFACE}


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Names, types and shapes, in the graphs and in the file that tells of them."""
    from ai_edge_litert.interpreter import Interpreter

    wanted = interface(spec)
    told = json.loads((artifact.folder / INTERFACE).read_text())
    yield "" if told == wanted else f"{INTERFACE} tells of another interface than the checkpoint's"
    for file, signatures in wanted.items():
        interpreter = Interpreter(str(artifact.folder / file))
        there = interpreter.get_signature_list()
        yield from (f"{file}: unknown signature {name}" for name in sorted(set(there) - set(signatures)))
        for name, sides in signatures.items():
            if name not in there:
                yield f"{file}: signature {name} is absent"
                continue
            runner = interpreter.get_signature_runner(name)
            for side, details in (("inputs", runner.get_input_details()), ("outputs", runner.get_output_details())):
                found = {key: [detail["dtype"].__name__, detail["shape"].tolist()] for key, detail in details.items()}
                differing = sorted(key for key in {*found, *sides[side]} if found.get(key) != sides[side].get(key))
                yield "; ".join(
                    f"{file}: {name}: {side} {key}: expected {sides[side].get(key, 'none')}, found {found.get(key, 'none')}"
                    for key in differing
                )
