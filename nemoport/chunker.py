"""Windows of mel frames for an encoder, cut from audio that comes in packets of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nemoport.audio import check_length, checked_samples
from nemoport.buffered import ChunkContext
from nemoport.errors import UsageError
from nemoport.frontend import LogMel, LogMelStream
from nemoport.spec import Lookahead, ModelSpec, StreamingSpec

FLUSH_RULES = ("full", "nemo")


def flush_rules(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the flush rules that differ for a model: an offline one always encodes the whole recording."""
    return FLUSH_RULES if spec.streaming else FLUSH_RULES[:1]


@dataclass(frozen=True)
class Chunk:
    """Input of one encoder run. mel: f32 [n_mels, T], zero behind `length`; T is the full window of its kind; `length` counts
    mel frames; first: whether the stream begins with it; kept: the first of its encoder frames that is decoded, and the
    end of those, None for all that follow."""

    mel: np.ndarray
    length: int
    first: bool
    kept: tuple[int, int | None] = (0, None)


class Chunker:
    """Cuts a stream of mel frames into encoder windows, as NeMo's CacheAwareStreamingAudioBuffer does.

    The first window has 1 + 8r frames and nothing before it, later ones 8(r + 1) behind the last 9 frames. Flush rules
    for the frames that are left at the end:

    - "full": every valid frame is encoded. Equals NeMo's offline run for r >= 1 (measured, see docs/exactness.md).
    - "nemo": NeMo's own streaming buffer: one frame of zeros is appended (its STFT yields one frame more than is
      valid), and a rest of fewer than 8 frames is dropped.
    """

    def __init__(self, spec: StreamingSpec, n_mels: int, lookahead: Lookahead, flush: str = "full"):
        """Raises UsageError for a lookahead that the checkpoint does not have, and for an unknown flush rule."""
        if not isinstance(lookahead, int) or lookahead not in spec.lookaheads:
            raise UsageError(
                f"Lookahead {lookahead} is not one of this checkpoint's.",
                expected=f"one of {', '.join(map(str, spec.lookaheads))}",
                found=str(lookahead),
                todo="choose one of these; others were never trained",
            )
        if flush not in FLUSH_RULES:
            raise UsageError("Unknown flush rule.", expected=" or ".join(FLUSH_RULES), found=flush, todo="choose one")
        self._spec, self._lookahead, self._flush = spec, lookahead, flush
        self._pending = np.zeros((n_mels, 0), np.float32)  # not yet cut
        self._cache: np.ndarray | None = None  # the mel frames before them; None before the first window

    def feed(self, mel: np.ndarray) -> list[Chunk]:
        """Takes the next valid frames, f32 [n_mels, k], and returns the windows that they complete."""
        if mel.shape[1]:
            self._pending = np.concatenate([self._pending, mel], 1)
        return list(self._full_windows())

    def missing_mel_frames(self) -> int:
        """Returns how many frames have to follow until the next window is complete."""
        return self._new_frames() - self._pending.shape[1]

    def finish(self) -> list[Chunk]:
        """Returns the last, shorter windows of the stream."""
        if self._flush == "nemo":
            self._pending = np.pad(self._pending, ((0, 0), (0, 1)))
        chunks = list(self._full_windows())
        rest = self._pending.shape[1]
        dropped = self._flush == "nemo" and self._cache is not None and rest < self._spec.subsampling_factor
        if rest and not dropped:
            chunks.append(self._cut(rest))
        return chunks

    def _full_windows(self) -> Iterator[Chunk]:
        while self._pending.shape[1] >= (new := self._new_frames()):
            yield self._cut(new)

    def _new_frames(self) -> int:
        return self._spec.chunk_mel_frames(self._lookahead, first=self._cache is None)

    def _cut(self, new: int) -> Chunk:
        first = self._cache is None
        window = self._pending[:, :new] if self._cache is None else np.concatenate([self._cache, self._pending[:, :new]], 1)
        size = self._spec.window_mel_frames(self._lookahead, first=first)
        # NeMo fills the cache with zeros in front when fewer frames came before (lookahead 0, second chunk).
        keep = self._spec.pre_encode_cache_mel_frames
        before = np.pad(window, ((0, 0), (max(0, keep - window.shape[1]), 0)))
        self._cache = before[:, before.shape[1] - keep :]
        self._pending = self._pending[:, new:]
        return Chunk(np.pad(window, ((0, 0), (0, size - window.shape[1]))), window.shape[1], first)


class StreamingChunker:
    """Cuts samples that come in packets into the windows of a cache-aware encoder."""

    def __init__(self, spec: ModelSpec, filterbank: np.ndarray, lookahead: Lookahead, flush: str):
        """Raises UsageError as `Chunker` does."""
        self._mel = LogMelStream(spec.frontend, filterbank)
        self._chunker = Chunker(spec.require_streaming(), spec.frontend.n_mels, lookahead, flush)

    def feed(self, samples: np.ndarray) -> list[Chunk]:
        """Takes the next samples, f32 [n], any n, and returns the windows that they complete. Raises AudioError."""
        return self._chunker.feed(self._mel.feed(samples))

    def missing_samples(self) -> int:
        """Returns how many samples have to follow until the next window is complete."""
        return self._mel.missing_samples(self._chunker.missing_mel_frames())

    def finish(self) -> list[Chunk]:
        """Returns the last windows of the stream."""
        return self._chunker.feed(self._mel.finish()) + self._chunker.finish()


class OfflineChunker:
    """Collects samples that come in packets into the one window of an offline encoder: the whole recording, at its end."""

    def __init__(self, spec: ModelSpec, filterbank: np.ndarray, lookahead: Lookahead, flush: str):
        """Raises UsageError for a lookahead, and for any flush rule but the first: an offline model has neither."""
        if lookahead is not None:
            raise UsageError(
                "This model has no lookahead.",
                expected="none: it encodes each recording as a whole",
                found=str(lookahead),
                todo="leave it out, or use a cache-aware model for live streams",
            )
        _check_no_flush_rule(flush)
        self._mel, self._rate_hz = LogMel(spec.frontend, filterbank), spec.frontend.sample_rate_hz
        self._packets: list[np.ndarray] = []
        self._count = 0  # of samples

    def feed(self, samples: np.ndarray) -> list[Chunk]:
        """Takes the next samples, f32 [n], any n. Returns no window. Raises AudioError, also where they are too many."""
        samples = checked_samples(samples)
        check_length(self._count + len(samples), self._rate_hz, "The recording")
        self._packets.append(samples.copy())  # the caller may fill its buffer anew
        self._count += len(samples)
        return []

    def missing_samples(self) -> float:
        """Returns inf: the window is complete at the end."""
        return math.inf

    def finish(self) -> list[Chunk]:
        """Returns the window of the whole recording; none if it is shorter than a mel frame."""
        mel = self._mel.whole(np.concatenate([np.zeros(0, np.float32), *self._packets]))
        return [Chunk(mel, mel.shape[1], True)] if mel.shape[1] else []


class BufferedChunker:
    """Cuts samples that come in packets into the windows of buffered streaming, as NeMo's StreamingBatchedAudioBuffer does.

    The first window has the samples of a chunk and of its right context. Each later one has those of a chunk more, until the
    left context is filled; then the oldest fall out. Mel frames, and their normalisation, are those of a window's samples alone.
    The last window ends with the recording, and all frames of it are decoded that were not before. Where what was decoded
    ends within a frame of it, NeMo decodes from that frame on.
    """

    def __init__(self, spec: ModelSpec, filterbank: np.ndarray, context: ChunkContext, flush: str):
        """Raises UsageError for a window that the model was not trained with, and for any flush rule but the first."""
        if spec.buffered is None:
            todo = "leave chunk and right context out, or export a model that was trained to stream by windows"
            raise UsageError("This model has no buffered streaming.", expected="a buffered model", found=spec.kind, todo=todo)
        spec.buffered.context(context.chunk, context.right)
        _check_no_flush_rule(flush)
        self._mel = LogMel(spec.frontend, filterbank)
        self._frame = spec.frontend.hop_samples * spec.encoder.subsampling_factor
        self._context = context
        self._window = np.zeros(0, np.float32)
        self._decoded = 0  # samples of the window whose frames are decoded
        self._waiting: list[np.ndarray] = []  # packets since the last window
        self._count = 0  # samples in them
        self._last: Chunk | None = None

    def feed(self, samples: np.ndarray) -> list[Chunk]:
        """Takes the next samples, f32 [n], any n, and returns the windows that they complete. Raises AudioError."""
        samples = checked_samples(samples)
        self._waiting.append(samples.copy())  # the caller may fill its buffer anew
        self._count += len(samples)
        chunks = []
        if self._count >= self._needed():
            samples = np.concatenate(self._waiting)
            while len(samples) >= (new := self._needed()):
                chunks.append(self._cut(samples[:new], self._context.chunk))
                samples = samples[new:]
            self._waiting, self._count = [samples.copy()], len(samples)
        return chunks

    def missing_samples(self) -> int:
        """Returns how many samples have to follow until the next window is complete."""
        return self._needed() - self._count

    def finish(self) -> list[Chunk]:
        """Returns the last window of the stream: where the recording ends with a window that was cut before, that one again, for
        the frames of its right context."""
        if self._count or self._last is None:
            chunk = self._cut(np.concatenate([np.zeros(0, np.float32), *self._waiting]), None)
            return [chunk] if chunk.length else []
        return [replace(self._last, kept=(self._last.kept[1] or 0, None))] if self._context.right else []

    def _needed(self) -> int:
        """Samples that the next window needs."""
        return (self._context.chunk if self._last else self._context.latency_enc_frames) * self._frame

    def _cut(self, new: np.ndarray, decoded: int | None) -> Chunk:
        """Returns the window that ends with the samples `new`. decoded: encoder frames of it that are, None for all."""
        window, first = np.concatenate([self._window, new]), self._last is None
        dropped = max(0, len(window) - sum(self._context) * self._frame)
        self._window, self._decoded = window[dropped:], self._decoded - dropped
        mel, start = self._mel.whole(self._window), self._decoded // self._frame
        self._last = Chunk(mel, mel.shape[1], first, (start, None if decoded is None else start + decoded))
        self._decoded += self._context.chunk * self._frame
        return self._last


def _check_no_flush_rule(flush: str) -> None:
    if flush != FLUSH_RULES[0]:
        raise UsageError("This model has no flush rule to choose.", expected=FLUSH_RULES[0], found=flush, todo="leave it out")


def make_chunker(
    spec: ModelSpec, filterbank: np.ndarray, lookahead: Lookahead, flush: str
) -> StreamingChunker | BufferedChunker | OfflineChunker:
    """Returns the chunker for this model's encoder. Raises UsageError for a lookahead or flush rule that it does not have."""
    if isinstance(lookahead, ChunkContext):
        return BufferedChunker(spec, filterbank, lookahead, flush)
    return (StreamingChunker if spec.streaming else OfflineChunker)(spec, filterbank, lookahead, flush)


def stacked(chunks: Sequence[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Joins chunks into a batch: mel f32 [B, n_mels, T], zeros behind those that are shorter; lengths i64 [B]."""
    longest = max(chunk.mel.shape[1] for chunk in chunks)
    mel = np.stack([np.pad(chunk.mel, ((0, 0), (0, longest - chunk.mel.shape[1]))) for chunk in chunks])
    return mel, np.array([chunk.length for chunk in chunks], np.int64)
