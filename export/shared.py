"""The files that every variant of a checkpoint shares: `shared/` of a build and of a package."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.frontend_graph import build_frontend_graph
from nemoport.files import json_bytes, new_folder, write_bytes
from nemoport.frontend import hann_window, mel_filterbank
from nemoport.prompt import PromptSpec
from nemoport.tokens import SPELLING, SpellingRule, tag_tokens

if TYPE_CHECKING:
    from torch import Tensor

SAME_BUFFER = 1e-6  # of a filterbank and a window in float32, over versions of librosa and torch
FILTERBANK, TOKENS, TOKENIZER, FRONTEND = "filterbank.bin", "tokens.txt", "tokenizer.model", "frontend.onnx"
LANGUAGES, VOCABULARY, METADATA = "languages.json", "vocab.json", "metadata.json"  # of a model with a prompt


def write_shared(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the shared files of a checkpoint into `folder`, those that it does not hold already.

    filterbank.bin (f32 [1, n_mels, n_fft/2 + 1], row major) and .meta, tokens.txt, spelling.json
    where the tokenizer spells in its own way, tokenizer.model, preprocessor.config, and
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
    if checkpoint.spelling != SpellingRule():
        rule = asdict(checkpoint.spelling)
        files[SPELLING] = json_bytes(rule if rule["events"] else {name: rule[name] for name in rule if name != "events"})
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
    for name in {TOKENIZER, SPELLING, LANGUAGES, VOCABULARY, METADATA} - files.keys():
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


def graph_weights(checkpoint: Checkpoint) -> dict:
    """Loads the tensors of which graphs are made: name -> f32. Raises CheckpointError as load_weights and check_frontend_buffers.

    A model with `xscaling` scales what the subsampling gives by the root of its width (NeMo RelPositionalEncoding): here the
    subsampling's last layer does.
    """
    weights = checkpoint.load_weights()
    check_frontend_buffers(checkpoint, weights)
    if checkpoint.config["encoder"].get("xscaling", True):
        for name in ("encoder.pre_encode.out.weight", "encoder.pre_encode.out.bias"):
            if name in weights:
                weights[name] = weights[name] * math.sqrt(checkpoint.spec.encoder.d_model)
    return weights


def check_frontend_buffers(checkpoint: Checkpoint, weights: dict) -> None:
    """Compares the filterbank and the window among a checkpoint's weights with those that its config gives.

    The export and the oracle compute the front end from the config, as NeMo's streaming buffer does; NeMo's offline run takes
    the checkpoint's buffers. A checkpoint saved in half precision has them rounded, also where NeMo saved it again in float32:
    that is the same front end. One in which they differ further has no single front end. Raises CheckpointError.
    """
    spec = checkpoint.spec.frontend
    for name, expected in (("fb", mel_filterbank(spec)), ("window", hann_window(spec.win_samples))):
        stored = weights.get(f"preprocessor.featurizer.{name}")
        if stored is None:
            continue
        found = stored.numpy()
        same_size = found.size == expected.size
        difference = np.abs(found.reshape(expected.shape) - expected) if same_size else np.full(1, np.inf)
        if not (difference <= SAME_BUFFER + _rounding(stored) * np.abs(expected)).all():
            raise CheckpointError(
                f"{checkpoint.path} holds a front end that its config does not yield.",
                expected=f"preprocessor.featurizer.{name} {expected.shape} as the config's sizes give it, to {SAME_BUFFER:g} or "
                "to the rounding of float16 or bfloat16",
                found=f"largest difference {difference.max():.3g}" if same_size else f"one of shape {found.shape}",
                todo="write the settings that it was trained with into its config (preprocessor), and save it with NeMo",
            )


def _rounding(stored: Tensor) -> float:
    """One unit of the coarsest half precision that holds every value of a tensor, relative to them; 0 where none does. A unit and
    not half of one, because the value that was rounded may have differed from ours in its last bits."""
    import torch

    held = (kind for kind in (torch.bfloat16, torch.float16) if torch.equal(stored.to(kind).float(), stored))
    return next((torch.finfo(kind).eps for kind in held), 0.0)


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
