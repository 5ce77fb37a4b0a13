"""config.json of a build or a package: its sections, with their types and bounds. export/config.py writes it.

The types list what is read, here or in the applications that the layouts serve. Other keys are kept, so that a layout that writes
config.json again loses nothing.
"""

# No `from __future__ import annotations`: with it, what is NotRequired would be required, in Python 3.11.
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast, final

from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on

from nemoport.buffered import Menu
from nemoport.errors import ArtifactError
from nemoport.files import read_json
from nemoport.prompt import MOST_LANGUAGES, LanguageName
from nemoport.schema import Name, Sha256, Shape, Text, check, most, real, whole
from nemoport.spec import CTC, Frames, ModelSpec

Count = Annotated[int, whole(0, 1_000_000)]
Shapes = Annotated[dict[Name, Shape], most(2000)]
Milliseconds = Annotated[float, real(0, 10_000_000)]


class CheckpointSection(TypedDict):
    """The checkpoint that a build was exported from. sha256: of the .nemo file, in hex.

    format: of a checkpoint that is none; `safetensors` is a folder of Hugging Face transformers, and sha256 that of the lines
    which `sha256sum` prints for its files in the order of their names.
    """

    name: Text
    sha256: Sha256
    format: NotRequired[Literal["safetensors"]]


class ChunkSection(TypedDict):
    """Sizes of the chunks of one lookahead. A window is the input for one chunk: mel frames before it, then its new ones."""

    latency_ms: Milliseconds
    first_window_mel_frames: Count
    window_mel_frames: Count
    new_mel_frames: Count
    encoder_frames: Count


class WindowRules(TypedDict):
    """Sentences on how windows and caches are fed."""

    first_chunk_rule: Text
    next_chunk_rule: Text
    last_chunk_rule: Text
    cache_rule: Text


@final
class StreamingEncoderSection(WindowRules):
    """Caches and chunks of a cache-aware encoder. Shapes are those of one stream; keys of `chunks_by_lookahead` are lookaheads
    in encoder frames, as decimal text."""

    cache_shapes: Shapes
    kv_cache_shapes: Shapes
    kv_cache_rule: Text
    pre_encode_cache_mel_frames: Frames
    chunks_by_lookahead: Annotated[dict[Name, ChunkSection], most(32, least=1)]
    default_lookahead: Frames
    attention_rule: NotRequired[Text]
    flush_rule: Text


class BufferedSection(TypedDict):
    """Windows of buffered streaming: the menus of their parts, in encoder frames, and how they are cut and fed. default: left
    context, chunk, right context; frame_samples: of an encoder frame."""

    input: Name
    left_frames: Menu
    chunk_frames: Menu
    right_frames: Menu
    default: Menu
    frame_samples: Count
    rule: Text


@final
class OfflineEncoderSection(TypedDict):
    """Input of an encoder that takes whole recordings. buffered: of one that streams by windows of audio."""

    input_rule: Text
    buffered: NotRequired[BufferedSection]


class PromptSection(TypedDict):
    """Language prompt. languages: name -> slot; language_tags: language -> id of the token that is its tag."""

    slots: Annotated[int, whole(1, 65_536)]
    languages: Annotated[dict[LanguageName, Count], most(MOST_LANGUAGES)]
    language_tags: Annotated[dict[LanguageName, Count], most(MOST_LANGUAGES)]
    rule: Text
    tag_rule: Text


class EventsSection(TypedDict):
    """Tokens that are events of a model that marks ends of utterances: event -> token id."""

    tokens: Annotated[dict[Name, Count], most(2, least=1)]
    rule: Text
    reset_rule: NotRequired[Text]


class DecoderSection(TypedDict):
    """Prediction network and joint. vocab_size counts blank; durations, in encoder frames, only of a TDT model; state_names: of
    the two state inputs, where a layout names them differently from the ONNX graphs."""

    blank_id: Count
    vocab_size: Count
    first_target: Count
    state_shape: Shape
    state_rule: Text
    state_names: NotRequired[Annotated[list[Name], most(2)]]
    max_symbols_per_frame: Annotated[int, whole(1, 1000)]
    durations: NotRequired[Annotated[list[Count], most(64)]]
    duration_rule: NotRequired[Text]


class CtcSection(TypedDict):
    """CTC decoder. vocab_size counts blank."""

    blank_id: Count
    vocab_size: Count
    rule: Text


class SherpaOnnxSection(TypedDict):
    """Section that the layout sherpa-onnx adds: the silence to feed before (lead) and after (tail) the audio. Only packages of
    streaming models have lookahead, chunk and tail. Each value whose key ends in `_rule` is a sentence of the card."""

    version: Text
    lead_samples: Count
    lead_rule: Text
    lookahead: NotRequired[Frames]
    chunk_ms: NotRequired[Milliseconds]
    tail_samples: NotRequired[Count]
    tail_rule: NotRequired[Text]
    front_end_rule: NotRequired[Text]


class OnnxruntimeSection(TypedDict):
    """How onnxruntime is set for the graphs."""

    minimum_version: Text
    session_config: Annotated[dict[Name, Text], most(64)]
    session_config_rule: Text


class OnnxAsrKeys(TypedDict, total=False):
    """Keys of config.json that the package onnx-asr reads; the layout of that name adds them."""

    model_type: Name
    features_size: Count
    subsampling_factor: Count
    max_tokens_per_step: Count


class RuntimeConfig(OnnxAsrKeys):
    """config.json of a build or of a package. spec: see `ModelSpec.from_dict`; base_model: Hub id, "" where there is none;
    frame_seconds: audio per encoder frame; decoder: of a transducer, ctc: of a CTC model; sherpa_onnx: in packages of the layout
    of that name."""

    spec: dict[str, Any]
    base_model: NotRequired[Text]
    checkpoint: CheckpointSection
    sample_rate: NotRequired[Count]
    frame_seconds: Annotated[float, real(0.0001, 60)]
    encoder: StreamingEncoderSection | OfflineEncoderSection
    prompt: NotRequired[PromptSection]
    events: NotRequired[EventsSection]
    decoder: NotRequired[DecoderSection]
    ctc: NotRequired[CtcSection]
    onnxruntime: NotRequired[OnnxruntimeSection]
    sherpa_onnx: NotRequired[SherpaOnnxSection]


class StreamingConfig(RuntimeConfig):
    """Of a streaming model."""

    encoder: StreamingEncoderSection  # pyright: ignore[reportIncompatibleVariableOverride]


class OfflineConfig(RuntimeConfig):
    """Of an offline model."""

    encoder: OfflineEncoderSection  # pyright: ignore[reportIncompatibleVariableOverride]


def read_config(folder: Path, todo: str = "run `nemoport export` first, or check the build folder") -> RuntimeConfig:
    """Reads config.json of a build or a package. todo: advice where there is none. Raises ArtifactError: absent, not JSON,
    without a required key, or with a value outside of its bounds, in `spec` too."""
    path = folder / "config.json"
    raw = read_json(path, todo)
    again = f"remove {folder} and run `nemoport export` again, or download it again"
    # Each kind of model has one section for its encoder, and the spec shows which.
    streaming = isinstance(raw.get("spec"), dict) and "streaming" in raw["spec"]
    check(StreamingConfig if streaming else OfflineConfig, raw, str(path), again)
    section = "ctc" if ModelSpec.from_dict(raw["spec"]).head == CTC else "decoder"
    if section not in raw:
        what = f"{path} does not describe the decoder."
        raise ArtifactError(what, expected=f"a section {section!r}", found=f"no {section}", todo=again)
    return cast(RuntimeConfig, raw)


def transducer_decoder(config: RuntimeConfig) -> DecoderSection:
    """Returns the decoder's section of a transducer. Raises ArtifactError for a CTC model."""
    if "decoder" not in config:
        raise ArtifactError(
            "config.json describes a CTC model.",
            expected="a prediction network and a joint",
            found="a CTC decoder",
            todo="take a layout for CTC models, or export a transducer",
        )
    return config["decoder"]


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
