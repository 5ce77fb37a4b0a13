"""What a checkpoint says of itself: the front end, the streaming geometry, the decoder. Read once, never retyped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from typing import TypeVar

from nemoport.errors import ArtifactError, UsageError


@dataclass(frozen=True)
class FrontendSpec:
    """Log-mel front end. `window` is always NeMo's symmetric Hann of `win_samples`, centred in `n_fft`."""

    sample_rate_hz: int
    n_mels: int
    n_fft: int
    win_samples: int
    hop_samples: int
    preemphasis: float
    log_guard: float  # added to the mel energy before the logarithm
    normalize: str  # "NA": none; "per_feature": mean and deviation per utterance


@dataclass(frozen=True)
class StreamingSpec:
    """Geometry of a cache-aware encoder.

    Formulas: NeMo `ConformerEncoder.setup_streaming_params`. A lookahead r is in encoder frames: a chunk yields r + 1.
    The first chunk has 1 + 8r new mel frames and no mel cache; a later one 8(r + 1) behind 9 mel frames of cache, of
    which the first two encoder frames are dropped (they were seen before).

    attention_lookahead: None, or how far the attention looks ahead within a chunk where that is less than the chunk: such
    a chunk is several of that lookahead's, run at once (export/profile.py).
    """

    n_layers: int
    d_model: int
    n_heads: int
    left_context_enc_frames: int
    lookaheads: tuple[int, ...]
    conv_cache_frames: int
    subsampling_factor: int
    pre_encode_cache_mel_frames: int
    attention_lookahead: int | None = None

    @property
    def drop_enc_frames(self) -> int:
        """Encoder frames that the mel cache yields and that are dropped from each chunk but the first."""
        return 1 + (self.pre_encode_cache_mel_frames - 1) // self.subsampling_factor

    @property
    def max_chunk_enc_frames(self) -> int:
        return max(self.lookaheads) + 1

    def chunk_mel_frames(self, lookahead: int, *, first: bool) -> int:
        """New mel frames of one chunk, without the mel cache."""
        return self.subsampling_factor * lookahead + (1 if first else self.subsampling_factor)

    def window_mel_frames(self, lookahead: int, *, first: bool) -> int:
        """Mel frames fed to the encoder for one chunk: cache and new frames."""
        return self.chunk_mel_frames(lookahead, first=first) + (0 if first else self.pre_encode_cache_mel_frames)

    def chunk_ms(self, lookahead: int, frontend: FrontendSpec) -> float:
        """Audio per chunk, which is also the algorithmic latency."""
        samples = self.chunk_mel_frames(lookahead, first=False) * frontend.hop_samples
        return 1000.0 * samples / frontend.sample_rate_hz


@dataclass(frozen=True)
class OfflineSpec:
    """An encoder that hears the whole utterance at once, with attention over all of it."""

    n_layers: int
    d_model: int
    n_heads: int
    subsampling_factor: int


@dataclass(frozen=True)
class DecodingSpec:
    """Transducer decoder. `vocab_size` excludes blank; blank is the last id; the first target of a stream is blank.

    A TDT model (token-and-duration transducer, arXiv 2304.06795) scores `durations`, in encoder frames, behind the
    tokens and blank: how far to go on from here. An RNNT model has none.
    """

    vocab_size: int
    pred_layers: int
    pred_hidden: int
    joint_hidden: int
    max_symbols_per_frame: int
    durations: tuple[int, ...] = ()

    @property
    def blank_id(self) -> int:
        return self.vocab_size

    @property
    def n_scores(self) -> int:
        """Width of the joint's output: tokens, blank, durations."""
        return self.vocab_size + 1 + len(self.durations)

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """Shape of each of the two LSTM states (hidden, cell); both start as zeros."""
        return (self.pred_layers, batch, self.pred_hidden)


Part = TypeVar("Part")
MASKED_SCORE = -10000.0  # NeMo multi_head_attention.INF_VAL: finite in fp16, and exp(-10000) is 0 in fp32
AUTO = "auto"  # NeMo's name of the prompt under which the model finds out the language by itself


@dataclass(frozen=True)
class PromptSpec:
    """How a model is told what language it hears: one of `slots` places of a one-hot vector, behind the encoder.

    languages: name -> slot, as the checkpoint's `prompt_dictionary` has it; several names may share a slot.
    """

    slots: int
    languages: dict[str, int]

    def name(self, slot: int) -> str:
        """The first name of a slot in the dictionary. Raises KeyError if it has none."""
        for language, number in self.languages.items():
            if number == slot:
                return language
        raise KeyError(slot)

    def slot(self, language: str | None) -> int:
        """Of a language by its name in the checkpoint's dictionary. Raises as `spelled`."""
        return self.languages[self.canonical_name(language)]

    def canonical_name(self, language: str | None) -> str:
        """A language as the dictionary spells it; case and `_` for `-` do not matter.

        Raises UsageError for no language, because none is a default, and for an unknown one, with the nearest names.
        """
        if not language:
            raise UsageError(
                "This model must be told a language.",
                expected=f"one of the {len(self.languages)} names in its dictionary (languages.json)"
                + (f", or {AUTO} to let it find out" if AUTO in self.languages else ""),
                found="none",
                todo="name one (--language; `lang` in a manifest)",
            )
        if language in self.languages:
            return language
        plain = {name.lower(): name for name in self.languages}
        wanted = language.lower().replace("_", "-")
        if wanted in plain:
            return plain[wanted]
        near = get_close_matches(wanted, plain, 5, 0.6) or [name for name in plain if name[:2] == wanted[:2]]
        names = [name for name in self.languages if name.lower() in near]
        raise UsageError(
            f"This model has no language {language!r}.",
            expected=f"one of the {len(self.languages)} names in its dictionary (languages.json)"
            + (f", such as {', '.join(names)}" if names else ""),
            found=language,
            todo="choose one of these" + (f", or {AUTO} to let the model find out" if AUTO in self.languages else ""),
        )


@dataclass(frozen=True)
class ModelSpec:
    """All that a runtime must know of a checkpoint."""

    kind: str  # "streaming-rnnt", "streaming-prompt-rnnt", "offline-rnnt" or "offline-tdt"
    frontend: FrontendSpec
    decoding: DecodingSpec
    streaming: StreamingSpec | None = None  # this one
    offline: OfflineSpec | None = None  # or this one
    prompt: PromptSpec | None = None  # of a model that is told a language

    @property
    def head(self) -> str:
        """Name of what turns frames into tokens, see heads.py."""
        return self.kind.rpartition("-")[2]

    @property
    def encoder(self) -> StreamingSpec | OfflineSpec:
        return self.streaming or self.require_offline()

    def require_streaming(self) -> StreamingSpec:
        """Raises UsageError for an offline model."""
        return _required(self.streaming, "a cache-aware streaming model", self.kind)

    def require_offline(self) -> OfflineSpec:
        """Raises UsageError for a streaming model."""
        return _required(self.offline, "an offline model", self.kind)

    def require_prompt(self) -> PromptSpec:
        """Raises UsageError for a model without a language prompt."""
        return _required(self.prompt, "a model with a language prompt", self.kind)

    @property
    def lookaheads(self) -> tuple[int | None, ...]:
        """In encoder frames; None for the one that an offline encoder has, which is all."""
        return self.streaming.lookaheads if self.streaming else (None,)

    @property
    def frame_seconds(self) -> float:
        """Seconds of audio per encoder frame."""
        return self.frontend.hop_samples * self.encoder.subsampling_factor / self.frontend.sample_rate_hz

    def check_prompts(self, batch: int, prompts: Sequence[int]) -> list[int]:
        """The slots of `batch` streams. Raises UsageError unless there is one for each of them, or, of a model without a
        prompt, none."""
        slots = list(prompts)
        if self.prompt is None and slots:
            raise UsageError("This model has no language prompt.", expected="none", found=str(slots), todo="leave it out")
        if self.prompt and (len(slots) != batch or not all(0 <= slot < self.prompt.slots for slot in slots)):
            raise UsageError(
                "This model must be told the language of each stream.",
                expected=f"{batch} prompt slots from 0 to {self.prompt.slots - 1}",
                found=str(slots) if slots else "none",
                todo="choose slots from the model's dictionary (languages.json)",
            )
        return slots

    def to_dict(self) -> dict:
        """The inverse of `from_dict`, in JSON's types: what this kind of model has."""
        encoder = "streaming" if self.streaming else "offline"
        parts = {"frontend": self.frontend, encoder: self.encoder, "decoding": self.decoding}
        if self.prompt:
            parts["prompt"] = self.prompt
        return {"kind": self.kind} | {name: _plain(asdict(part)) for name, part in parts.items()}

    @staticmethod
    def from_dict(raw: dict) -> ModelSpec:
        try:
            if ("streaming" in raw) == ("offline" in raw):
                raise KeyError("either streaming or offline")
            return ModelSpec(
                kind=raw["kind"],
                frontend=_build(FrontendSpec, raw["frontend"]),
                decoding=_build(DecodingSpec, raw["decoding"]),
                streaming=_build(StreamingSpec, raw["streaming"]) if "streaming" in raw else None,
                offline=_build(OfflineSpec, raw["offline"]) if "offline" in raw else None,
                prompt=_build(PromptSpec, raw["prompt"]) if "prompt" in raw else None,
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                "The model spec cannot be read.",
                expected="the `spec` object that `nemoport export` writes to config.json",
                found=f"{type(error).__name__}: {error}",
                todo="export the checkpoint again",
            ) from error


def _required(part: Part | None, expected: str, kind: str) -> Part:
    if part is None:
        todo = "choose a checkpoint or an artifact of that kind"
        raise UsageError("This model is of another kind.", expected=expected, found=kind, todo=todo)
    return part


def context_name(lookahead: int | None) -> str:
    """As gates and progress lines call it."""
    return "full context" if lookahead is None else f"lookahead {lookahead}"


def _build(cls, raw: dict):
    values = {f.name: raw[f.name] for f in fields(cls) if f.name in raw or f.default is MISSING}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _plain(values: dict) -> dict:
    kept = {name: value for name, value in values.items() if value != () and value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}
