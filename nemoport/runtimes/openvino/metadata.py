"""nemotron_vocab.json and metadata.json, the files beside the graphs: the keys of
FluidInference's OpenVINO package of Nemotron 3.5, and behind them nemoport's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on

from nemoport.cache_layout import NEMO
from nemoport.files import read_json, write_bytes, write_json
from nemoport.prompt import AUTO
from nemoport.runtimes.openvino.graphs import METADATA, RUNTIME, STATEFUL, VOCABULARY
from nemoport.schema import CLOSED, check, whole
from nemoport.spec import CTC, ModelSpec, StreamingSpec
from nemoport.tokens import tag_tokens

# NeMo's classes of the models that the graphs serve: the value of `model_class`, as in that package.
TRANSDUCER_CLASS = "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel"
PROMPT_CLASS = "nemo.collections.asr.models.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt"
CTC_CLASS = "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"
STATE_RULE = (
    "the encoder runs one stream and keeps its caches as the state of the infer request: create a request of the compiled model "
    "for each stream, and call its reset_state() before the next one"
)

FLOATS = "f32"  # else OpenVINO computes in bf16 where a processor has it
GROUP = "DYNAMIC_QUANTIZATION_GROUP_SIZE"


def runtime_properties(group: int) -> dict:
    """Returns OpenVINO's properties to compile the graphs with. group: channels of an activation that are rounded together, 0
    for none."""
    return {"INFERENCE_PRECISION_HINT": FLOATS, GROUP: group}


class _Properties(TypedDict, total=False):
    """Those of `runtime_properties`. Others name folders to write to, libraries to load or devices, and are no file's choice."""

    __pydantic_config__ = CLOSED  # pyright: ignore[reportGeneralTypeIssues]  # as pydantic documents it
    INFERENCE_PRECISION_HINT: Literal["f32"]
    DYNAMIC_QUANTIZATION_GROUP_SIZE: Annotated[int, whole(0, 1_000_000)]


def read_properties(folder: Path) -> dict[str, Any]:
    """Reads OpenVINO's properties from metadata.json in a variant's folder. Raises ArtifactError for others than those of
    `runtime_properties`."""
    todo = "build or download the variant again"
    properties = read_json(folder / METADATA, todo).get(RUNTIME, {})
    return check(_Properties, properties, f"{folder / METADATA}: {RUNTIME}", todo)


def vocabulary(tokens: Sequence[str]) -> dict[str, str]:
    """Returns the content of nemotron_vocab.json: id -> piece."""
    return {str(index): piece for index, piece in enumerate(tokens)}


def metadata(config: Mapping, tokens: Sequence[str], layout: str, precision: str, runtime: Mapping) -> dict:
    """Returns the content of metadata.json.

    config: config.json of the build; tokens: pieces by id; layout: the cache layout; precision: of the weights; runtime:
    OpenVINO's properties to compile the graphs with.
    """
    spec = ModelSpec.from_dict(config["spec"])
    decoding = spec.decoding
    return {
        "model": config["base_model"] or config["checkpoint"]["name"],
        "model_class": PROMPT_CLASS if spec.prompt else CTC_CLASS if spec.head == CTC else TRANSDUCER_CLASS,
        "precision": precision.upper(),
        "sample_rate": spec.frontend.sample_rate_hz,
        "mel_features": spec.frontend.n_mels,
        **(_windows(config["encoder"], spec.streaming) if spec.streaming else {}),
        "vocab_size": decoding.vocab_size,
        "blank_idx": decoding.blank_id,
        **(_caches(config["encoder"], layout) if spec.streaming else {}),
        **({} if spec.head == CTC else {"decoder_hidden": decoding.pred_hidden, "decoder_layers": decoding.pred_layers}),
        "encoder_dim": spec.encoder.d_model,
        **(_prompt(spec, tokens) if spec.prompt else {}),
        "contract": layout,
        **_rules(config, spec),
        **_decoding(config, spec),
        **({"events": config["events"]} if "events" in config else {}),
        RUNTIME: dict(runtime),
    }


def _windows(encoder: Mapping, streaming: StreamingSpec) -> dict:
    longest, within = encoder["chunks_by_lookahead"][str(max(streaming.lookaheads))], streaming.attention_lookahead
    return {
        # The package's consumers expect one chunk size: the longest.
        "chunk_mel_frames": longest["new_mel_frames"],
        "pre_encode_cache": streaming.pre_encode_cache_mel_frames,
        "total_mel_frames": longest["window_mel_frames"],
        "att_context_size": [streaming.left_context_enc_frames, max(streaming.lookaheads) if within is None else within],
    }


def _caches(encoder: Mapping, layout: str) -> dict:
    if layout == STATEFUL:
        return {"state_rule": STATE_RULE}
    if layout == NEMO:
        shapes = encoder["cache_shapes"]
        return {"cache_channel_shape": shapes["cache_last_channel"], "cache_time_shape": shapes["cache_last_time"]}
    return {"kv_cache_shapes": encoder["kv_cache_shapes"], "kv_cache_rule": encoder["kv_cache_rule"]}


def _decoding(config: Mapping, spec: ModelSpec) -> dict:
    if spec.head == CTC:
        return {"ctc_rule": config["ctc"]["rule"]}
    durations = {key: config["decoder"][key] for key in ("durations", "duration_rule") if key in config["decoder"]}
    return {"max_symbols_per_frame": spec.decoding.max_symbols_per_frame, **durations}


def _rules(config: Mapping, spec: ModelSpec) -> dict:
    chunks = ("chunks_by_lookahead", "first_chunk_rule", "next_chunk_rule", "last_chunk_rule")
    kept = {key: config["encoder"][key] for key in (chunks if spec.streaming else ("normalize", "input_rule"))}
    return kept if spec.streaming else {"frame_seconds": config["frame_seconds"], **kept}


def _prompt(spec: ModelSpec, tokens: Sequence[str]) -> dict:
    prompt = spec.require_prompt()
    languages = prompt.languages
    return {
        "num_prompts": prompt.slots,
        "prompt_dictionary": languages,
        **({"default_prompt_id": languages[AUTO]} if AUTO in languages else {}),
        "lang_tag_token_ids": sorted(tag_tokens(tokens).values()),
    }


def write_sidecars(folder: Path, tokens: Sequence[str], values: dict) -> None:
    """Writes nemotron_vocab.json and metadata.json. values: as `metadata` returns them. Raises OutputError."""
    write_bytes(folder / VOCABULARY, (json.dumps(vocabulary(tokens), ensure_ascii=False, indent=2) + "\n").encode())
    write_json(folder / METADATA, values)
