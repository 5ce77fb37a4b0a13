"""The files that every variant of a checkpoint shares: `shared/` of a build and of a package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.frontend_graph import build_frontend_graph
from nemoport.files import json_bytes, new_folder, write_bytes
from nemoport.frontend import hann_window, mel_filterbank
from nemoport.prompt import PromptSpec
from nemoport.tokens import tag_tokens

FILTERBANK, TOKENS, TOKENIZER, FRONTEND = "filterbank.bin", "tokens.txt", "tokenizer.model", "frontend.onnx"
LANGUAGES, VOCABULARY, METADATA = "languages.json", "vocab.json", "metadata.json"  # of a model with a prompt


def write_shared(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the shared files of a checkpoint into `folder`, those that it does not hold already.

    filterbank.bin (f32 [1, n_mels, n_fft/2 + 1], row major) and .meta, tokens.txt, tokenizer.model, preprocessor.config, and
    frontend.onnx (audio to log-mel); of a model with a prompt also languages.json (name -> slot), vocab.json (id -> piece) and
    metadata.json (ids and sizes), as the published packages of such models have them.
    """
    spec = checkpoint.spec.frontend
    filterbank = mel_filterbank(spec).astype(np.float32)
    files = {
        FILTERBANK: filterbank[None].tobytes(),
        "filterbank.meta": f"1 {spec.n_mels} {spec.n_fft // 2 + 1} float32\n".encode(),
        TOKENS: "".join(f"{piece} {index}\n" for index, piece in enumerate(checkpoint.tokens)).encode(),
        "preprocessor.config": _preprocessor_config(checkpoint).encode(),
        FRONTEND: build_frontend_graph(spec, filterbank).SerializeToString(),
    }
    if checkpoint.tokenizer:
        files[TOKENIZER] = checkpoint.tokenizer
    if checkpoint.spec.prompt:
        files[LANGUAGES] = json_bytes(checkpoint.spec.prompt.languages)
        files[VOCABULARY] = json_bytes({str(index): piece for index, piece in enumerate(checkpoint.tokens)})
        files[METADATA] = json_bytes(_metadata(checkpoint, checkpoint.spec.prompt))
    if not folder.is_dir():
        with new_folder(folder, or_existing=True) as work:
            for name, content in files.items():
                (work / name).write_bytes(content)
    for name, content in files.items():
        write_bytes(folder / name, content)
    for name in {TOKENIZER, LANGUAGES, VOCABULARY, METADATA} - files.keys():
        (folder / name).unlink(missing_ok=True)


def _metadata(checkpoint: Checkpoint, prompt: PromptSpec) -> dict:
    spec, streaming = checkpoint.spec, checkpoint.spec.require_streaming()
    return {
        "sample_rate": spec.frontend.sample_rate_hz,
        "mel_features": spec.frontend.n_mels,
        "num_layers": streaming.n_layers,
        "encoder_dim": streaming.d_model,
        "left_context": streaming.left_context_enc_frames,
        "lookaheads": list(streaming.lookaheads),
        "pre_encode_cache": streaming.pre_encode_cache_mel_frames,
        "vocab_size": spec.decoding.vocab_size + 1,
        "blank_id": spec.decoding.blank_id,
        "num_prompts": prompt.slots,
        "prompt_dictionary": prompt.languages,
        "lang_tag_token_ids": sorted(tag_tokens(checkpoint.tokens).values()),
    }


def check_frontend_buffers(checkpoint: Checkpoint, weights: dict) -> None:
    """Compares the filterbank and the window among a checkpoint's weights with those that its config gives.

    NeMo's streaming buffer rebuilds the front end from the config, its offline run uses the checkpoint's buffers: a checkpoint
    in which they differ has no single front end. Raises CheckpointError.
    """
    spec = checkpoint.spec.frontend
    for name, expected in (("fb", mel_filterbank(spec)), ("window", hann_window(spec.win_samples))):
        stored = weights.get(f"preprocessor.featurizer.{name}")
        if stored is None:
            continue
        found = stored.numpy()
        same_size = found.size == expected.size
        difference = np.abs(found.reshape(expected.shape) - expected).max() if same_size else np.inf
        if not difference <= 1e-6:
            raise CheckpointError(
                f"{checkpoint.path} holds a front end that its config does not yield.",
                expected=f"preprocessor.featurizer.{name} as the config's sizes give it, to 1e-6: {expected.shape}",
                found=f"largest difference {difference:.3g}" if same_size else f"one of shape {found.shape}",
                todo="restore and save the checkpoint with NeMo 3.0.0",
            )


def _preprocessor_config(checkpoint: Checkpoint) -> str:
    spec = checkpoint.spec.frontend
    rows = {
        "sample_rate": spec.sample_rate_hz,
        "n_mels": spec.n_mels,
        "n_fft": spec.n_fft,
        "win_length": spec.win_samples,
        "hop_length": spec.hop_samples,
        "window": "hann_symmetric",
        "preemphasis": spec.preemphasis,
        "log_guard": repr(spec.log_guard),
        "mel_norm": "slaney",
        "normalize": spec.normalize,
        "center": "true",
        "pad_mode": "constant",
        "layout": "n_mels,frames",
    }
    return "".join(f"{key}={value}\n" for key, value in rows.items())
