"""The chunk loop: audio in packets of any size -> mel -> chunks -> encoder frames -> tokens, for one stream or many.

An offline model has a chunk too: the whole recording."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nemoport.audio import checked_samples
from nemoport.beam import BeamSearch
from nemoport.errors import UsageError
from nemoport.frontend import LogMel, LogMelStream
from nemoport.heads import DecodingState, head_of
from nemoport.session import Session
from nemoport.spec import ModelSpec, StreamingSpec

FLUSH_RULES = ("full", "nemo")


def flush_rules(spec: ModelSpec) -> tuple[str, ...]:
    """Those that make a difference: an offline model hears all that there is."""
    return FLUSH_RULES if spec.streaming else FLUSH_RULES[:1]


@dataclass(frozen=True)
class Chunk:
    """mel: f32 [n_mels, T], zero behind `length`; T is the full window of its kind. `length` counts mel frames."""

    mel: np.ndarray
    length: int
    first: bool


class Chunker:
    """Cuts a stream of mel frames into encoder windows, as NeMo's CacheAwareStreamingAudioBuffer does.

    The first window has 1 + 8r frames and nothing before it, later ones 8(r + 1) behind the last 9 frames. Flush rules
    for what is left at the end:

    - "full": every valid frame is encoded. Equals NeMo's offline run for r >= 1 (measured, see README).
    - "nemo": NeMo's own streaming buffer: one frame of zeros is appended (its STFT yields one frame more than is
      valid), and a rest of fewer than 8 frames is dropped.
    """

    def __init__(self, spec: StreamingSpec, n_mels: int, lookahead: int, flush: str = "full"):
        if lookahead not in spec.lookaheads:
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
        """mel: f32 [n_mels, k], the next valid frames -> the windows that they complete."""
        if mel.shape[1]:
            self._pending = np.concatenate([self._pending, mel], 1)
        return list(self._full_windows())

    def finish(self) -> list[Chunk]:
        """The last, shorter windows of the stream."""
        if self._flush == "nemo":
            self._pending = np.pad(self._pending, ((0, 0), (0, 1)))
        chunks = list(self._full_windows())
        rest = self._pending.shape[1]
        dropped = self._flush == "nemo" and self._cache is not None and rest < self._spec.subsampling_factor
        if rest and not dropped:
            chunks.append(self._cut(rest))
        return chunks

    def _full_windows(self):
        while self._pending.shape[1] >= (new := self._new_frames()):
            yield self._cut(new)

    def _new_frames(self) -> int:
        return self._spec.chunk_mel_frames(self._lookahead, first=self._cache is None)

    def _cut(self, new: int) -> Chunk:
        first = self._cache is None
        window = self._pending[:, :new] if first else np.concatenate([self._cache, self._pending[:, :new]], 1)
        size = self._spec.window_mel_frames(self._lookahead, first=first)
        # NeMo fills the cache with zeros in front when fewer frames came before (lookahead 0, second chunk).
        keep = self._spec.pre_encode_cache_mel_frames
        before = np.pad(window, ((0, 0), (max(0, keep - window.shape[1]), 0)))
        self._cache = before[:, before.shape[1] - keep :]
        self._pending = self._pending[:, new:]
        return Chunk(np.pad(window, ((0, 0), (0, size - window.shape[1]))), window.shape[1], first)


class StreamingChunker:
    """Samples in packets -> the windows of a cache-aware encoder."""

    def __init__(self, spec: ModelSpec, filterbank: np.ndarray, lookahead: int, flush: str):
        self._mel = LogMelStream(spec.frontend, filterbank)
        self._chunker = Chunker(spec.streaming, spec.frontend.n_mels, lookahead, flush)

    def feed(self, samples: np.ndarray) -> list[Chunk]:
        return self._chunker.feed(self._mel.feed(samples))

    def finish(self) -> list[Chunk]:
        return self._chunker.feed(self._mel.finish()) + self._chunker.finish()


class OfflineChunker:
    """Samples in packets -> one window that holds them all, at the end: what an offline encoder hears."""

    def __init__(self, spec: ModelSpec, filterbank: np.ndarray, lookahead: None, flush: str):
        if lookahead is not None:
            raise UsageError(
                "This model has no lookahead.",
                expected="none: it hears each recording as a whole",
                found=str(lookahead),
                todo="leave it out, or use a cache-aware model for live streams",
            )
        if flush != FLUSH_RULES[0]:
            raise UsageError("This model has no flush rule to choose.", expected=FLUSH_RULES[0], found=flush, todo="leave it out")
        self._mel = LogMel(spec.frontend, filterbank)
        self._packets: list[np.ndarray] = []

    def feed(self, samples: np.ndarray) -> list[Chunk]:
        self._packets.append(checked_samples(samples).copy())  # the caller may fill its buffer anew
        return []

    def finish(self) -> list[Chunk]:
        mel = self._mel.whole(np.concatenate([np.zeros(0, np.float32), *self._packets]))
        return [Chunk(mel, mel.shape[1], True)] if mel.shape[1] else []


def make_chunker(spec: ModelSpec, filterbank: np.ndarray, lookahead: int | None, flush: str) -> StreamingChunker | OfflineChunker:
    """What cuts a stream for this model's encoder."""
    return (StreamingChunker if spec.streaming else OfflineChunker)(spec, filterbank, lookahead, flush)


class Stream:
    """One live stream, or one recording. `feed` and `finish` return the tokens that became final. Greedy tokens are never
    revised. With a beam `tokens` is the best hypothesis so far: those behind the first `n_final` can change until the end. An
    offline model emits nothing before `finish`."""

    def __init__(
        self,
        session: Session,
        filterbank: np.ndarray,
        lookahead: int | None,
        flush: str = "full",
        prompt: int | None = None,
        search: BeamSearch | None = None,
    ):
        """prompt: the slot of the language, of a model that has `spec.prompt`; search: greedy without. Raises UsageError."""
        spec = session.spec
        self._session = session
        self._chunker = make_chunker(spec, filterbank, lookahead, flush)
        self.chunks: list[Chunk] = []  # cut, not yet encoded
        (self.encoder_state,) = session.unstack(session.initial_state(1, [] if prompt is None else [prompt]))
        self.decoded: DecodingState = head_of(spec).start(spec.decoding, search)
        self._returned = 0  # tokens

    def set_language(self, prompt: int) -> None:
        """Changes the language from the next chunk on. prompt: its slot. Raises UsageError."""
        (slot,) = self._session.spec.check_prompts(1, [prompt])
        self.encoder_state = replace(self.encoder_state, prompt_index=np.array([slot], np.int64))

    @property
    def tokens(self) -> list[int]:
        return self.decoded.tokens

    @property
    def n_final(self) -> int:
        """How many of `tokens` nothing that follows can change."""
        return self.decoded.n_final

    def tell(self, prompt: int) -> None:
        """Deprecated name of `set_language`."""
        warnings.warn("Stream.tell is Stream.set_language now", DeprecationWarning, stacklevel=2)
        self.set_language(prompt)

    @property
    def certain(self) -> int:
        """Deprecated name of `n_final`."""
        warnings.warn("Stream.certain is Stream.n_final now", DeprecationWarning, stacklevel=2)
        return self.n_final

    @property
    def token_seconds(self) -> list[float]:
        """Time of the encoder frame on which each token came out, in seconds from the start of the stream.

        Frame j is at 80 j ms: where the subsampling is causal, that is as far as the frame itself has heard, else its
        middle. Its right context and the model's own habit put it before or behind the spoken sound. The last frame of an
        utterance may be up to one frame past its end.
        """
        return [frame * self._session.spec.frame_seconds for frame in self.decoded.token_frames]

    def push(self, samples: np.ndarray) -> None:
        """samples: f32 [n], mono, at the model's rate. Cuts chunks without running them; see `advance`."""
        self.chunks += self._chunker.feed(samples)

    def close(self) -> None:
        """The end of the audio: cuts the last chunks."""
        self.chunks += self._chunker.finish()

    def feed(self, samples: np.ndarray) -> list[int]:
        self.push(samples)
        self._run()
        return self._new(self.n_final)

    def finish(self) -> list[int]:
        self.close()
        self._run()
        return self._new(len(self.tokens))

    def _run(self) -> None:
        while self.chunks:
            advance(self._session, [self])

    def _new(self, end: int) -> list[int]:
        start, self._returned = self._returned, end
        return self.tokens[start:end]


def advance(session: Session, streams: list[Stream]) -> list[np.ndarray]:
    """Runs the next chunk of each stream, in one batch per window size, and returns each stream's encoder frames.

    Streams in a batch may be at different places and have different amounts of audio left; a first window is shorter
    than a later one, so streams that have just joined form a batch of their own. Returns f32 [T', d_model] per stream,
    valid frames only, in the order of `streams`; an empty array for a stream without a chunk.
    """
    out = [np.zeros((0, session.spec.encoder.d_model), np.float32) for _ in streams]
    # Whole utterances of any lengths share a batch.
    sizes = {i: s.chunks[0].mel.shape[1] if session.spec.streaming else 0 for i, s in enumerate(streams) if s.chunks}
    for size in sorted(set(sizes.values())):
        members = [i for i in sizes if sizes[i] == size]
        batch = [streams[i] for i in members]
        chunks = [stream.chunks.pop(0) for stream in batch]
        state = session.stack([stream.encoder_state for stream in batch])
        frames, frame_lengths, state = session.encode(*stacked(chunks), state)
        for stream, new_state in zip(batch, session.unstack(state), strict=True):
            stream.encoder_state = new_state
        for kind in dict.fromkeys(type(stream.decoded) for stream in batch):  # greedy, or a beam search
            rows = [row for row, stream in enumerate(batch) if type(stream.decoded) is kind]
            kind.decode(session, frames[rows], frame_lengths[rows], [batch[row].decoded for row in rows])
        for row, i in enumerate(members):
            out[i] = frames[row, : frame_lengths[row]]
    return out


def stacked(chunks: Sequence[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Mel f32 [B, n_mels, T], zeros behind those that are shorter; lengths i64 [B]."""
    longest = max(chunk.mel.shape[1] for chunk in chunks)
    mel = np.stack([np.pad(chunk.mel, ((0, 0), (0, longest - chunk.mel.shape[1]))) for chunk in chunks])
    return mel, np.array([chunk.length for chunk in chunks], np.int64)
