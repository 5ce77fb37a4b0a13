"""Facts of a checkpoint's configuration: its geometry (geometry.py), its decoder. Read once, never retyped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, TypeVar

from nemoport.buffered import BufferedSpec, ChunkContext
from nemoport.errors import ArtifactError, UsageError
from nemoport.events import EventSpec
from nemoport.geometry import MOST_FRAMES as MOST_FRAMES
from nemoport.geometry import Frames as Frames
from nemoport.geometry import FrontendSpec as FrontendSpec
from nemoport.geometry import OfflineSpec as OfflineSpec
from nemoport.geometry import StreamingSpec as StreamingSpec
from nemoport.prompt import PromptSpec
from nemoport.schema import Name, check, most, whole
from nemoport.text import clipped

MOST_CACHE_BYTES = 4 << 30


@dataclass(frozen=True)
class DecodingSpec:
    """Sizes of a decoder. `vocab_size` excludes blank; blank is the last id; a transducer's first target is blank.

    A TDT model (token-and-duration transducer, arXiv 2304.06795) scores `durations`, in encoder frames, behind the
    tokens and blank: how many frames to go on by. An RNNT model has none. A CTC model has neither a prediction network nor a
    joint, so their sizes are 0, and one symbol on each frame.
    """

    vocab_size: Annotated[int, whole(1, 65_536)]
    pred_layers: Annotated[int, whole(0, 16)] = 0
    pred_hidden: Annotated[int, whole(0, 16_384)] = 0
    joint_hidden: Annotated[int, whole(0, 16_384)] = 0
    max_symbols_per_frame: Annotated[int, whole(1, 1000)] = 1
    durations: Annotated[tuple[Annotated[int, whole(0, 1000)], ...], most(64)] = ()

    @property
    def blank_id(self) -> int:
        """Id of blank, behind all tokens."""
        return self.vocab_size

    @property
    def n_scores(self) -> int:
        """Scores of a frame: tokens, blank, durations."""
        return self.vocab_size + 1 + len(self.durations)

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """Returns the shape of each of the two LSTM states (hidden, cell); both start as zeros. A CTC model's are empty."""
        return (self.pred_layers, batch, self.pred_hidden)


# How far the encoder of a stream looks ahead: the right context of a cache-aware one in encoder frames, the window of a buffered
# one, or None for the whole recording.
Lookahead = int | ChunkContext | None
Part = TypeVar("Part")
CTC = "ctc"  # the head without a prediction network
MASKED_SCORE = -10000.0  # NeMo multi_head_attention.INF_VAL: finite in fp16, and exp(-10000) is 0 in fp32


@dataclass(frozen=True)
class ModelSpec:
    """All facts of a checkpoint that a runtime needs."""

    kind: Name  # of export/kinds.py, such as "streaming-rnnt" or "offline-ctc"
    frontend: FrontendSpec
    decoding: DecodingSpec
    streaming: StreamingSpec | None = None  # of a cache-aware model; else
    offline: OfflineSpec | None = None  # of an offline one
    buffered: BufferedSpec | None = None  # of an offline one that streams by windows of audio
    prompt: PromptSpec | None = None  # of a model that takes a language
    events: EventSpec | None = None  # of a model that marks ends of utterances

    @property
    def head(self) -> str:
        """Name of the head, which turns frames into tokens, see nemoport/heads/."""
        return self.kind.rpartition("-")[2]

    @property
    def resetting(self) -> frozenset[int]:
        """The tokens behind which the decoder begins anew."""
        return frozenset(self.events.kinds) if self.events and self.events.resets else frozenset()

    @property
    def encoder(self) -> StreamingSpec | OfflineSpec:
        """The encoder's geometry, of either kind."""
        return self.streaming or self.require_offline()

    def require_streaming(self) -> StreamingSpec:
        """Returns `streaming`. Raises UsageError for an offline model."""
        return _required(self.streaming, "a cache-aware streaming model", self.kind)

    def require_offline(self) -> OfflineSpec:
        """Returns `offline`. Raises UsageError for a streaming model."""
        return _required(self.offline, "an offline model", self.kind)

    def require_prompt(self) -> PromptSpec:
        """Returns `prompt`. Raises UsageError for a model without a language prompt."""
        return _required(self.prompt, "a model with a language prompt", self.kind)

    @property
    def lookaheads(self) -> tuple[Lookahead, ...]:
        """The encoder's lookaheads in encoder frames; of an offline one None, the whole utterance; of a buffered one also the
        windows that are judged."""
        return self.streaming.lookaheads if self.streaming else (None, *(self.buffered.judged if self.buffered else ()))

    @property
    def frame_seconds(self) -> float:
        """Seconds of audio per encoder frame."""
        return self.frontend.hop_samples * self.encoder.subsampling_factor / self.frontend.sample_rate_hz

    def check_prompts(self, batch: int, prompts: Sequence[int]) -> list[int]:
        """Returns the prompt slots of `batch` streams. Raises UsageError unless there is one for each stream, or none at all for
        a model without a prompt."""
        slots = list(prompts)
        if self.prompt is None and slots:
            raise UsageError("This model has no language prompt.", expected="none", found=str(slots), todo="leave it out")
        if self.prompt and (len(slots) != batch or not all(0 <= slot < self.prompt.slots for slot in slots)):
            raise UsageError(
                "This model needs the language of each stream.",
                expected=f"{batch} prompt slots from 0 to {self.prompt.slots - 1}",
                found=str(slots) if slots else "none",
                todo="choose slots from the model's dictionary (languages.json)",
            )
        return slots

    def to_dict(self) -> dict:
        """Returns the spec in JSON's types, with those parts that this kind of model has; the inverse of `from_dict`."""
        encoder = "streaming" if self.streaming else "offline"
        parts = {"frontend": self.frontend, encoder: self.encoder, "decoding": self.decoding}
        parts |= {name: part for name in ("buffered", "prompt", "events") if (part := getattr(self, name))}
        return {"kind": self.kind} | {name: _plain(asdict(part)) for name, part in parts.items()}

    @staticmethod
    def from_dict(raw: dict) -> ModelSpec:
        """Reads a spec from the `spec` object of config.json. Raises ArtifactError."""
        spec: ModelSpec = check(ModelSpec, raw, "The model spec", todo := "export the checkpoint again, or download the package")
        if wrong := _contradiction(spec):
            raise ArtifactError("The model spec contradicts itself.", expected=wrong, found=clipped(repr(spec), 400), todo=todo)
        return spec


def _cache_bytes(spec: ModelSpec) -> int:
    """Bytes of keys and values in f32, the largest of the caches; of the 0.6B models 14 MB."""
    streaming = spec.streaming
    return 8 * streaming.n_layers * streaming.left_context_enc_frames * streaming.d_model if streaming else 0


def _contradiction(spec: ModelSpec) -> str:
    """Returns what should hold between the fields of a spec and does not, "" where all does."""
    frontend, encoder, prompt = spec.frontend, spec.streaming or spec.offline, spec.prompt
    if encoder is None or (spec.streaming and (spec.offline or spec.buffered)):
        return "either streaming or offline"
    decoding = spec.decoding
    sizes = (decoding.pred_layers, decoding.pred_hidden, decoding.joint_hidden)
    rules = {
        "a prediction network and a joint, unless it is a CTC model": not any(sizes) if spec.head == CTC else all(sizes),
        "a window of at most n_fft samples": frontend.win_samples <= frontend.n_fft,
        "a hop of at most a second": frontend.hop_samples <= frontend.sample_rate_hz,
        "a d_model that is a multiple of n_heads": encoder.d_model % encoder.n_heads == 0,
        f"caches of at most {MOST_CACHE_BYTES >> 30} GiB a stream": _cache_bytes(spec) <= MOST_CACHE_BYTES,
        "events that are tokens, each another": spec.events is None or spec.events.are_tokens(spec.decoding.vocab_size),
        "chunks of at least a frame": spec.buffered is None or min(spec.buffered.chunks) >= 1,
        "a prompt's slots below their number": prompt is None or all(s < prompt.slots for s in prompt.languages.values()),
    }
    return next((rule for rule, holds in rules.items() if not holds), "")


def _required(part: Part | None, expected: str, kind: str) -> Part:
    if part is None:
        todo = "choose a checkpoint or an artifact of that kind"
        raise UsageError("This model is of another kind.", expected=expected, found=kind, todo=todo)
    return part


def context_name(lookahead: Lookahead) -> str:
    """Returns the name of a lookahead in gates and progress lines."""
    if isinstance(lookahead, ChunkContext):
        return str(lookahead)
    return "full context" if lookahead is None else f"lookahead {lookahead}"


def _plain(values: dict) -> dict:
    """Returns the values in JSON's types, without empty ones, which are the defaults."""
    kept = {name: value for name, value in values.items() if value != () and value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}
