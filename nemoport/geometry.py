"""Sizes of a model's front end and encoder, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from nemoport.schema import most, real, whole

# Several times what the largest published model has, as the bounds of a checkpoint's config (export/hyperparameters.py).
Layers = Annotated[int, whole(1, 256)]
Width = Annotated[int, whole(1, 16_384)]
MOST_FRAMES = 10_000
Frames = Annotated[int, whole(0, MOST_FRAMES)]


@dataclass(frozen=True)
class FrontendSpec:
    """Log-mel front end. `window` is always NeMo's symmetric Hann of `win_samples`, centred in `n_fft`."""

    sample_rate_hz: Annotated[int, whole(4000, 192_000)]
    n_mels: Annotated[int, whole(8, 512)]
    n_fft: Annotated[int, whole(32, 65_536)]
    win_samples: Annotated[int, whole(1, 65_536)]
    hop_samples: Annotated[int, whole(1, 65_536)]
    preemphasis: Annotated[float, real(0, 1)]
    log_guard: Annotated[float, real(1e-30, 1)]  # added to the mel energy before the logarithm
    normalize: Literal["NA", "per_feature"]  # none; mean and deviation per utterance

    def mel_frames(self, seconds: int) -> int:
        """Returns the mel frames of a recording of so many seconds."""
        return seconds * self.sample_rate_hz // self.hop_samples


@dataclass(frozen=True)
class StreamingSpec:
    """Geometry of a cache-aware encoder.

    Formulas: NeMo `ConformerEncoder.setup_streaming_params`. A lookahead r is in encoder frames: a chunk yields r + 1.
    The first chunk has 1 + 8r new mel frames and no mel cache; a later one 8(r + 1) behind 9 mel frames of cache, of
    which the first two encoder frames are dropped (the chunk before has yielded them).

    attention_lookahead: None, or how far the attention looks ahead within a chunk where that is less than the chunk: such
    a chunk is several of that lookahead's, run at once (export/profile.py).
    """

    n_layers: Layers
    d_model: Width
    n_heads: Layers
    left_context_enc_frames: Frames
    lookaheads: Annotated[tuple[Frames, ...], most(32, least=1)]
    conv_cache_frames: Annotated[int, whole(0, 254)]
    subsampling_factor: Annotated[int, whole(1, 64)]
    pre_encode_cache_mel_frames: Frames
    attention_lookahead: Frames | None = None

    @property
    def drop_enc_frames(self) -> int:
        """Encoder frames that the mel cache yields and that are dropped from each chunk but the first."""
        return 1 + (self.pre_encode_cache_mel_frames - 1) // self.subsampling_factor

    @property
    def max_chunk_enc_frames(self) -> int:
        """Encoder frames that a chunk of the largest lookahead yields."""
        return max(self.lookaheads) + 1

    def chunk_mel_frames(self, lookahead: int, *, first: bool) -> int:
        """Returns the new mel frames of one chunk, without the mel cache."""
        return self.subsampling_factor * lookahead + (1 if first else self.subsampling_factor)

    def window_mel_frames(self, lookahead: int, *, first: bool) -> int:
        """Returns the mel frames fed to the encoder for one chunk: cache and new frames."""
        return self.chunk_mel_frames(lookahead, first=first) + (0 if first else self.pre_encode_cache_mel_frames)

    def chunk_ms(self, lookahead: int, frontend: FrontendSpec) -> float:
        """Returns the milliseconds of audio per chunk, which are also the algorithmic latency."""
        samples = self.chunk_mel_frames(lookahead, first=False) * frontend.hop_samples
        return 1000.0 * samples / frontend.sample_rate_hz


@dataclass(frozen=True)
class OfflineSpec:
    """Geometry of an encoder that takes a whole utterance at once. attention_enc_frames: how far a frame attends to either side,
    or None for all of the utterance."""

    n_layers: Layers
    d_model: Width
    n_heads: Layers
    subsampling_factor: Annotated[int, whole(1, 64)]
    attention_enc_frames: Annotated[int, whole(1, MOST_FRAMES)] | None = None

    def enc_frames(self, mel_frames: int) -> int:
        """Returns the encoder frames of so many mel frames."""
        return -(-mel_frames // self.subsampling_factor)
