"""Lays variants out for onnxruntime-genai (model type nemotron_speech), in an environment of its own.

    python bench/peers/genai.py --build BUILD --work build/peers/genai [--variant int8-dynamic] [--lookahead 6]

Writes WORK/venv and, for each variant, WORK/<variant> for `bench/streaming.py --genai`. It runs one stream of the nemo
contract, frames before bands. So the graphs get transpositions at their ends, the decoder is cut in two and takes one i64
token; weights and arithmetic stay as they are, and the weights of the encoder are not copied.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nemoport.artifact import Artifact
from nemoport.export.split import FRAMES, PREDICTION_IN, PREDICTION_OUT, SCORES, split_decoder
from nemoport.spec import ModelSpec

PACKAGES = ["onnxruntime-genai==0.18.0", "onnxruntime==1.31.1", "numpy==2.4.6"]
FRAMES_FIRST = "_frames_first"
CACHES = ("cache_last_channel", "cache_last_time", "cache_last_channel_len")


def environment(folder: Path) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)


def frames_first(graph, name: str) -> None:
    """The input or output `name` f32 [B, bands, T] becomes `name`_frames_first [B, T, bands]."""
    value = next(v for v in (*graph.input, *graph.output) if v.name == name)
    turned = name + FRAMES_FIRST
    is_input = value in graph.input
    node = helper.make_node("Transpose", *([[turned], [name]] if is_input else [[name], [turned]]), perm=[0, 2, 1])
    graph.node.insert(0 if is_input else len(graph.node), node)
    dims = [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
    value.CopyFrom(helper.make_tensor_value_info(turned, TensorProto.FLOAT, [dims[0], dims[2], dims[1]]))


def one_token(graph) -> None:
    """Of the predictor: i64 targets, no lengths."""
    lengths = next(v for v in graph.input if v.name == "target_length")
    graph.input.remove(lengths)
    graph.initializer.append(numpy_helper.from_array(np.ones(1, np.int32), "target_length"))
    graph.output.remove(next(v for v in graph.output if v.name == "prednet_lengths"))
    targets = next(v for v in graph.input if v.name == "targets")
    targets.CopyFrom(helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "tokens"]))
    graph.node.insert(0, helper.make_node("Cast", ["tokens"], ["targets"], to=TensorProto.INT32))


def lay_out(artifact: Artifact, folder: Path, lookahead: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    encoder = onnx.load(artifact.encoder, load_external_data=False)
    for name in ("audio_signal", "outputs"):
        frames_first(encoder.graph, name)
    onnx.save(encoder, folder / "encoder.onnx")
    weights = artifact.folder / artifact.manifest.files["encoder_data"].path
    shutil.copyfile(weights, folder / weights.name)
    split = split_decoder(onnx.load(artifact.decoder))
    one_token(split.predictor.graph)
    for name in (FRAMES, PREDICTION_IN):
        frames_first(split.joiner.graph, name)
    onnx.save(split.predictor, folder / "decoder.onnx")
    onnx.save(split.joiner, folder / "joiner.onnx")
    (folder / "genai_config.json").write_text(json.dumps(config(artifact.spec, lookahead), indent=1))


def config(spec: ModelSpec, lookahead: int) -> dict:
    streaming, frontend, decoding = spec.streaming, spec.frontend, spec.decoding
    encoder = {
        "filename": "encoder.onnx",
        "hidden_size": streaming.d_model,
        "num_hidden_layers": streaming.n_layers,
        "inputs": {"audio_features": "audio_signal" + FRAMES_FIRST, "input_lengths": "length", **{n: n for n in CACHES}},
        "outputs": {
            "encoder_outputs": "outputs" + FRAMES_FIRST,
            "output_lengths": "encoded_lengths",
            "cache_last_channel_next": "cache_last_channel_next",
            "cache_last_time_next": "cache_last_time_next",
            "cache_last_channel_len_next": "cache_last_channel_next_len",
        },
    }
    decoder = {
        "filename": "decoder.onnx",
        "hidden_size": decoding.pred_hidden,
        "num_hidden_layers": decoding.pred_layers,
        "inputs": {"targets": "tokens", "lstm_hidden_state": "input_states_1", "lstm_cell_state": "input_states_2"},
        "outputs": {
            "outputs": PREDICTION_OUT,
            "lstm_hidden_state": "output_states_1",
            "lstm_cell_state": "output_states_2",
        },
    }
    joiner = {
        "filename": "joiner.onnx",
        "inputs": {"encoder_outputs": FRAMES + FRAMES_FIRST, "decoder_outputs": PREDICTION_IN + FRAMES_FIRST},
        "outputs": {"logits": SCORES},
    }
    model = {
        "type": "nemotron_speech",
        "vocab_size": decoding.vocab_size + 1,
        "num_mels": frontend.n_mels,
        "fft_size": frontend.n_fft,
        "hop_length": frontend.hop_samples,
        "win_length": frontend.win_samples,
        "preemph": frontend.preemphasis,
        "log_eps": frontend.log_guard,
        "subsampling_factor": streaming.subsampling_factor,
        "left_context": streaming.left_context_enc_frames,
        "conv_context": streaming.conv_cache_frames,
        "pre_encode_cache_size": streaming.pre_encode_cache_mel_frames,
        "sample_rate": frontend.sample_rate_hz,
        "chunk_samples": streaming.chunk_mel_frames(lookahead, first=False) * frontend.hop_samples,
        "blank_id": decoding.vocab_size,
        "max_symbols_per_step": decoding.max_symbols_per_frame,
    }
    return {"model": {**model, "encoder": encoder, "decoder": decoder, "joiner": joiner}, "search": {"max_length": 10**6}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variant", action="append", dest="variants", help="repeat for several; default: fp32")
    parser.add_argument("--lookahead", type=int, default=6)
    options = parser.parse_args()
    environment(options.work / "venv")
    for variant in options.variants or ["fp32"]:
        lay_out(Artifact.open(options.build / variant), options.work / variant, options.lookahead)


if __name__ == "__main__":
    main()
