"""Folders of Hugging Face transformers: their JSON files, the index and the headers of safetensors."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz.checkpoints import check_accepted
from fuzz.engine import Target
from fuzz.mutate import mutated_bytes, mutated_json, mutated_value
from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.containers.safetensors_file import read_header
from nemoport.text import has_controls

Files = dict[str, Any]  # name of a file -> its bytes, or what it is the JSON of
PIECES = ["<unk>", "\u2581a", "b", "<pad>", "<de-DE>", "\u2581", "a"]
ENCODER = {
    "attention_bias": False, "convolution_bias": False, "scale_input": False, "conv_kernel_size": 9, "hidden_act": "silu",
    "hidden_size": 8, "intermediate_size": 32, "max_position_embeddings": 5000, "num_attention_heads": 2, "num_hidden_layers": 1,
    "num_mel_bins": 16, "subsampling_conv_channels": 4, "subsampling_factor": 8,
}  # fmt: skip
HEAD = {"vocab_size": 8, "blank_token_id": 7, "decoder_hidden_size": 4, "num_decoder_layers": 1, "max_symbols_per_step": 10}
MODELS = {
    "parakeet_ctc": {"vocab_size": 8, "pad_token_id": 7},
    "parakeet_tdt": {**HEAD, "durations": [0, 1, 2]},
    "nemotron3_5_asr": {**HEAD, "num_prompts": 4, "prompt_intermediate_size": 16},
}


def safetensors(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@lru_cache
def headers() -> list[tuple[dict, bytes]]:
    """Headers that hold, and the data behind them."""
    tensors = {"a": ("F32", [2, 3], 24), "b": ("BF16", [4], 8), "c.num_batches_tracked": ("I64", [], 8), "d": ("F16", [0, 7], 0)}
    found, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, size) in tensors.items():
        found[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return [(found, bytes(range(at))), ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))]


@lru_cache
def files_of_tensors() -> list[bytes]:
    return [safetensors(*one) for one in headers()]


def read_tensors(content: bytes, folder: Path) -> None:
    """Where an accepted header reads a byte twice, or one that is none of the data, that is a fault."""
    (path := folder / "x.safetensors").write_bytes(content)
    try:
        found = read_header(path)
    except ValueError as error:  # as its description says
        raise CheckpointError(str(error)) from error
    start = 8 + int.from_bytes(content[:8], "little")
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
    held = sum(sizes[tensor.dtype] * tensor.size for tensor in found.values())
    assert held == len(content) - start, "tensors do not fill the data"
    for name, tensor in found.items():
        assert not has_controls(name) and start <= tensor.start <= len(content)
        values = tensor.load()
        assert values.shape == tensor.shape and values.size == math.prod(tensor.shape) and values.dtype.name == "float32"


def mutate_tensors(rng: Random, seeds: Any) -> bytes:
    if rng.random() < 0.2:
        return mutated_bytes(rng, rng.choice(seeds), seeds)
    header, data = rng.choice(headers())
    text = mutated_json(rng, header)
    length = len(text) if rng.random() < 0.95 else rng.choice((0, 1, len(text) + 1, 1 << 40, (1 << 64) - 1))
    return length.to_bytes(8, "little") + text + (data if rng.random() < 0.8 else mutated_bytes(rng, data))


@lru_cache
def folders() -> list[Files]:
    return [_folder(name, shards) for name in MODELS for shards in (False, True)]


def _folder(name: str, shards: bool) -> Files:
    streaming = name.startswith("nemotron")
    processor = {
        "feature_extractor": {
            "feature_extractor_type": "NemotronAsrStreamingFeatureExtractor" if streaming else "ParakeetFeatureExtractor",
            "feature_size": 16, "hop_length": 160, "n_fft": 512, "preemphasis": 0.97, "sampling_rate": 16000, "win_length": 400,
        },
        "supported_num_lookahead_tokens": [3, 0],
        "default_num_lookahead_tokens": 3,
        "prompt_dictionary": {"auto": 3, "de-DE": 1},
    }  # fmt: skip
    tokenizer = {
        "model": {
            "type": "BPE",
            "vocab": {piece: i for i, piece in enumerate(PIECES)},
            "merges": [["\u2581", "a"]],
            "unk_token": "<unk>",
        },
        "added_tokens": [
            {"id": i, "content": text, "special": True} for i, text in ((3, "<pad>"), (4, "<de-DE>"), (8, "<blank>"))
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AAAA"}]},
        "decoder": {"type": "Metaspace"},
    }
    encoder = {**ENCODER, "sliding_window": 9} if streaming else ENCODER
    files: Files = {
        "config.json": {"model_type": name, **MODELS[name], "encoder_config": encoder},
        "processor_config.json": processor,
        "tokenizer.json": tokenizer,
    }
    if not shards:
        return files | {"model.safetensors": files_of_tensors()[0]}
    index = {name: "model-1.safetensors" for name in headers()[0][0] if name != "__metadata__"} | {"x": "model-2.safetensors"}
    one, two = files_of_tensors()
    parts = {"model-1.safetensors": one, "model-2.safetensors": two}
    return files | parts | {"model.safetensors.index.json": {"weight_map": index}}


def read_folder(files: Files, folder: Path) -> None:
    (model := folder / "model").mkdir()
    for name, content in files.items():
        (model / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    read = read_checkpoint(str(model))
    assert read.path == model and len(read.sha256) == 64
    weights = read.load_weights()
    assert (
        sum(weight.numel() for weight in weights.values())
        == read.weights_bytes // 4
        <= sum(map(len, map(_bytes, files.values())))
    )
    check_accepted(read, folder)


def _bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else b""


def mutate_folder(rng: Random, seeds: Any) -> Files:
    files = deepcopy(rng.choice(seeds))
    name = rng.choice([name for name in files for _ in range(1 if name.endswith(".safetensors") else 4)])
    if (kind := rng.random()) < 0.05:
        del files[name]
    elif isinstance(files[name], bytes):
        files[name] = mutated_bytes(rng, files[name])
    elif kind < 0.2:
        files[name] = mutated_json(rng, files[name])
    else:
        files[name] = mutated_value(rng, files[name])
    return files


TARGETS = (
    Target("safetensors", files_of_tensors, mutate_tensors, read_tensors, 60),
    Target("transformers", folders, mutate_folder, read_folder, 60),
)
