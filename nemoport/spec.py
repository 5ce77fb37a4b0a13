"""What a checkpoint says of itself: the front end, the streaming geometry, the decoder. Read once, never retyped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from nemoport.errors import ArtifactError


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
    """

    n_layers: int
    d_model: int
    n_heads: int
    left_context_enc_frames: int
    lookaheads: tuple[int, ...]
    conv_cache_frames: int
    subsampling_factor: int
    pre_encode_cache_mel_frames: int

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
class DecodingSpec:
    """Transducer decoder. `vocab_size` excludes blank; blank is the last id; the first target of a stream is blank."""

    vocab_size: int
    pred_layers: int
    pred_hidden: int
    joint_hidden: int
    max_symbols_per_frame: int

    @property
    def blank_id(self) -> int:
        return self.vocab_size

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """Shape of each of the two LSTM states (hidden, cell); both start as zeros."""
        return (self.pred_layers, batch, self.pred_hidden)


@dataclass(frozen=True)
class ModelSpec:
    """All that a runtime must know of a checkpoint."""

    kind: str  # "streaming-rnnt"
    frontend: FrontendSpec
    streaming: StreamingSpec
    decoding: DecodingSpec

    @property
    def frame_seconds(self) -> float:
        """Seconds of audio per encoder frame."""
        return self.frontend.hop_samples * self.streaming.subsampling_factor / self.frontend.sample_rate_hz

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(raw: dict) -> ModelSpec:
        try:
            streaming = dict(raw["streaming"], lookaheads=tuple(raw["streaming"]["lookaheads"]))
            return ModelSpec(
                kind=raw["kind"],
                frontend=_build(FrontendSpec, raw["frontend"]),
                streaming=_build(StreamingSpec, streaming),
                decoding=_build(DecodingSpec, raw["decoding"]),
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                "The model spec cannot be read.",
                expected="the `spec` object that `nemoport export` writes to config.json",
                found=f"{type(error).__name__}: {error}",
                todo="export the checkpoint again",
            ) from error


def _build(cls, raw: dict):
    return cls(**{f.name: raw[f.name] for f in fields(cls)})
