"""Converts modules of fixed shapes to .tflite files, by litert-torch, and their weights to 16 or 8 bits, by ai-edge-quantizer."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from nemoport.export.checkpoint import Checkpoint
from nemoport.export.decoder import DecoderJoint
from nemoport.export.encoder_fixed import FixedEncoder
from nemoport.export.heads.ctc import CtcDecoder
from nemoport.export.shared import graph_weights
from nemoport.export.targets.litert.decoder import Ctc, Joint, Predict
from nemoport.export.targets.litert.encoder import LitertEncoder, Recording, Window, use_linear
from nemoport.export.weight_errors import explain_weight_errors, refuse_unused
from nemoport.interface import Tensor
from nemoport.progress import Progress, step
from nemoport.runtimes.litert.graphs import (
    DECODER,
    ENCODER,
    ctc_name,
    joint_frames,
    joint_name,
    recording_name,
    signatures,
    window_name,
)
from nemoport.spec import CTC, ModelSpec

LAYERS = ".*ConformerLayer.*"  # matches the names of tensors that the encoder's layers compute


def convert_graphs(checkpoint: Checkpoint, folder: Path, windows_s: Sequence[int], progress: Progress) -> None:
    """Writes encoder.tflite and decoder.tflite into `folder`, in f32. windows_s: of an offline model, in seconds. Raises
    CheckpointError."""
    weights, spec = graph_weights(checkpoint), checkpoint.spec
    with explain_weight_errors(checkpoint), torch.no_grad():
        head, decoder = _heads(weights, spec, windows_s)
        encoder, windows = _windows(weights, spec, windows_s)
        every = signatures(spec, windows_s)
        examples = {file: {name: _example(one.inputs) for name, one in named.items()} for file, named in every.items()}
        for modules, file in ((windows, ENCODER), (decoder, DECODER)):
            for name, module in modules.items():
                module.eval()(**examples[file][name])
    refuse_unused(checkpoint, encoder.unused + head.unused)
    del weights
    for modules, file in ((windows, ENCODER), (decoder, DECODER)):
        with step(f"litert: {file}, {len(modules)} signatures", progress):
            _convert({name: (module, examples[file][name]) for name, module in modules.items()}, folder / file)


def _heads(
    weights: dict[str, torch.Tensor], spec: ModelSpec, windows_s: Sequence[int]
) -> tuple[DecoderJoint | CtcDecoder, Mapping[str, torch.nn.Module]]:
    """Makes the decoder, and signature -> module of it."""
    counts = joint_frames(spec, windows_s)
    if spec.head == CTC:
        ctc = CtcDecoder(weights, spec.decoding)
        return ctc, {ctc_name(frames): Ctc(ctc) for frames in counts}
    fused = DecoderJoint(weights, spec.decoding)
    return fused, {"predict": Predict(fused)} | {joint_name(frames): Joint(fused) for frames in counts}


def _windows(
    weights: dict[str, torch.Tensor], spec: ModelSpec, windows_s: Sequence[int]
) -> tuple[Any, dict[str, torch.nn.Module]]:
    """Makes the encoder, and signature -> module of it."""
    if spec.streaming:
        encoder = LitertEncoder(weights, spec.streaming, spec.prompt)
        chunks = [(lookahead, first) for lookahead in spec.streaming.lookaheads for first in (True, False)]
        return encoder, {window_name(*chunk): Window(encoder, *chunk) for chunk in chunks}
    offline = spec.require_offline()
    whole = FixedEncoder(weights, offline, offline.enc_frames(spec.frontend.mel_frames(max(windows_s))))
    use_linear(whole)
    return whole, {recording_name(seconds): Recording(whole) for seconds in windows_s}


def _example(inputs: Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(tensor.of(), dtype=getattr(torch, tensor.dtype)) for name, tensor in inputs.items()}


def _convert(modules: dict[str, tuple[torch.nn.Module, dict]], path: Path) -> None:
    with _quiet() as chain:
        for name, (module, example) in modules.items():
            chain = chain.signature(name, module, sample_kwargs=example)
        chain.convert().export(str(path))


def quantize(floats: Path, folder: Path, weights: str) -> None:
    """Writes the graphs of the folder `floats` into `folder` with other weights: f16 or i8, as targets.litert.Parameters."""
    # both in an environment of their own, see constraints-litert.txt
    from ai_edge_quantizer import qtyping, quantizer  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer.algorithm_manager import AlgorithmName  # pyright: ignore[reportMissingImports]

    def recipe(one: Any) -> None:
        if weights == "i8":
            one.add_dynamic_config(LAYERS, qtyping.TFLOperationName.FULLY_CONNECTED, 8)
            return
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        one.update_quantization_recipe(".*", qtyping.TFLOperationName.ALL_SUPPORTED, config, AlgorithmName.FLOAT_CASTING)

    for file in (ENCODER, DECODER):
        if weights == "i8" and file == DECODER:
            shutil.copy(floats / file, folder / file)
            continue
        with _quiet():
            one = quantizer.Quantizer(str(floats / file))
            recipe(one)
            one.quantize().export_model(str(folder / file))


@contextmanager
def _quiet() -> Iterator[Any]:
    """Silences the converters, which print each step and the libraries for GPUs that are absent. Yields litert_torch."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            import litert_torch  # pyright: ignore[reportMissingImports]  # in an environment of its own, as above

            litert_torch.config.show_progress = False
            yield litert_torch
    finally:
        logging.disable(level)
