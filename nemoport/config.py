"""Typed reading of config.json: the sections that cards and layouts read. export/config.py writes it.

The types list only what is read. Other keys are kept, so that a layout that writes config.json again loses nothing.
"""

# No `from __future__ import annotations`: with it, `__required_keys__` would count what is NotRequired, in Python 3.11.
from pathlib import Path
from typing import Any, NotRequired, TypedDict, final

from nemoport.errors import ArtifactError
from nemoport.files import read_json


class CheckpointSection(TypedDict):
    """The checkpoint that a build was exported from. sha256: of the .nemo file, in hex."""

    name: str
    sha256: str


class ChunkSection(TypedDict):
    """Sizes of the chunks of one lookahead. A window is the input for one chunk: mel frames before it, then its new ones."""

    latency_ms: float
    first_window_mel_frames: int
    window_mel_frames: int
    new_mel_frames: int
    encoder_frames: int


class WindowRules(TypedDict):
    """Sentences on how windows and caches are fed."""

    first_chunk_rule: str
    next_chunk_rule: str
    last_chunk_rule: str
    cache_rule: str


@final
class StreamingEncoderSection(WindowRules):
    """Caches and chunks of a cache-aware encoder. Shapes are those of one stream; keys of `chunks_by_lookahead` are lookaheads
    in encoder frames, as decimal text."""

    cache_shapes: dict[str, list[int]]
    kv_cache_shapes: dict[str, list[int]]
    kv_cache_rule: str
    pre_encode_cache_mel_frames: int
    chunks_by_lookahead: dict[str, ChunkSection]
    default_lookahead: int
    attention_rule: NotRequired[str]
    flush_rule: str


@final
class OfflineEncoderSection(TypedDict):
    """Input of an encoder that takes whole recordings."""

    input_rule: str


class PromptSection(TypedDict):
    """Language prompt. languages: name -> slot; language_tags: language -> id of the token that is its tag."""

    slots: int
    languages: dict[str, int]
    language_tags: dict[str, int]
    rule: str
    tag_rule: str


class DecoderSection(TypedDict):
    """Prediction network and joint. vocab_size counts blank; durations, in encoder frames, only of a TDT model; state_names: of
    the two state inputs, where a layout names them differently from the ONNX graphs."""

    blank_id: int
    vocab_size: int
    first_target: int
    state_shape: list[int]
    state_rule: str
    state_names: NotRequired[list[str]]
    max_symbols_per_frame: int
    durations: NotRequired[list[int]]
    duration_rule: NotRequired[str]


class SherpaOnnxSection(TypedDict):
    """Section that the layout sherpa-onnx adds: the silence to feed before (lead) and after (tail) the audio. Only packages of
    streaming models have lookahead, chunk and tail. Each value whose key ends in `_rule` is a sentence of the card."""

    version: str
    lead_samples: int
    lead_rule: str
    lookahead: NotRequired[int]
    chunk_ms: NotRequired[float]
    tail_samples: NotRequired[int]
    tail_rule: NotRequired[str]
    front_end_rule: NotRequired[str]


class OnnxAsrKeys(TypedDict, total=False):
    """Keys of config.json that the package onnx-asr reads; the layout of that name adds them."""

    model_type: str
    features_size: int
    subsampling_factor: int
    max_tokens_per_step: int


class RuntimeConfig(OnnxAsrKeys):
    """config.json of a build or of a package. spec: see `ModelSpec.from_dict`; base_model: Hub id, "" where there is none;
    frame_seconds: audio per encoder frame; sherpa_onnx: in packages of the layout of that name."""

    spec: dict[str, Any]
    base_model: NotRequired[str]
    checkpoint: CheckpointSection
    frame_seconds: float
    encoder: StreamingEncoderSection | OfflineEncoderSection
    prompt: NotRequired[PromptSection]
    decoder: DecoderSection
    onnxruntime: NotRequired[dict[str, Any]]
    sherpa_onnx: NotRequired[SherpaOnnxSection]


def read_config(build: Path) -> RuntimeConfig:
    """Reads config.json of a build folder. Raises ArtifactError: absent, not JSON, or without a key that is required here."""
    path = build / "config.json"
    raw = read_json(path, "run `nemoport export` first, or check BUILD")
    streaming = "streaming" in _section(raw, "spec")
    sections = {
        "checkpoint": CheckpointSection,
        "encoder": StreamingEncoderSection if streaming else OfflineEncoderSection,
        "decoder": DecoderSection,
        **({"prompt": PromptSection} if "prompt" in raw else {}),
    }
    absent = sorted(RuntimeConfig.__required_keys__ - set(raw))
    for name, section in sections.items():
        absent += [f"{name}.{key}" for key in sorted(section.__required_keys__ - set(_section(raw, name)))]
    if absent:
        raise ArtifactError(
            f"{path} is incomplete.",
            expected="every key that `nemoport export` writes for this kind of model",
            found=f"no {', no '.join(absent)}",
            todo=f"remove {build} and run `nemoport export` again",
        )
    return RuntimeConfig(**raw)


def streaming_encoder(config: RuntimeConfig) -> StreamingEncoderSection:
    """Returns the encoder's section of a streaming model. Raises ArtifactError for an offline one."""
    encoder = config["encoder"]
    if "chunks_by_lookahead" not in encoder:
        raise ArtifactError(
            "config.json describes an offline encoder.",
            expected="caches and chunks of a streaming model",
            found="a rule for whole recordings",
            todo="take the layout native or onnx-asr, or export a streaming checkpoint",
        )
    return encoder


def _section(raw: dict, name: str) -> dict:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}
