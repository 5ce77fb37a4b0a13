"""The chunk loop: audio in packets of any size -> mel -> chunks -> encoder frames -> tokens, for one stream or many.

An offline model has a chunk too: the whole recording."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np

from nemoport.beam import BeamSearch
from nemoport.chunker import Chunk, make_chunker, stacked
from nemoport.confidence import DEFAULT_CONFIDENCE, Confidence
from nemoport.errors import UsageError
from nemoport.events import Event
from nemoport.heads import DecodingState, head_of
from nemoport.long_audio import Timed
from nemoport.session import EncoderState, Session, looking
from nemoport.spec import Lookahead


class Stream:
    """One live stream, or one recording. `feed` and `finish` return the tokens that became final. Greedy tokens are never
    revised. With a beam `tokens` is the best hypothesis so far: those behind the first `n_final` can change, in a recognizer's
    stream for a second (`FINAL_S` behind the frame of the token). An offline model emits nothing before `finish` or `flush`."""

    def __init__(
        self,
        session: Session,
        filterbank: np.ndarray,
        lookahead: Lookahead,
        flush: str = "full",
        prompt: int | None = None,
        search: BeamSearch | None = None,
        confidence: Confidence = DEFAULT_CONFIDENCE,
    ):
        """filterbank: f32 [n_mels, n_fft // 2 + 1]; lookahead: in encoder frames, the window of buffered streaming, or None for
        a whole recording; flush: see nemoport/chunker.py; prompt: the slot of the language, for a model that has `spec.prompt`;
        search: settings of a beam search, greedy without; confidence: measure of that in each token. Raises UsageError."""
        spec = session.spec
        self._session, self.lookahead = session, lookahead
        self._new_chunker = partial(make_chunker, spec, filterbank, lookahead, flush)
        self._new_decoded = partial(head_of(spec).start, spec.decoding, search, confidence)
        self._prompts = [] if prompt is None else [prompt]
        self.reset()

    def reset(self) -> None:
        """Makes the stream a new one, in the same language, whether it has ended or not."""
        self.restarts = 0  # how often the encoder began anew, because its frames were not finite
        self.begun = 0  # how often `tokens` began: at the start, and with the audio behind each `flush`
        self._fed = 0  # samples
        self._closed = self._finished = False
        self._begin()

    def _begin(self) -> None:
        """Begins an utterance, at the samples that are fed next."""
        self._start_s = self._fed / self._session.spec.frontend.sample_rate_hz
        self._chunker = self._new_chunker()
        self.chunks: list[Chunk] = []  # cut, not yet encoded
        self.encoder_state = self._new_state()
        self.decoded: DecodingState = self._new_decoded()
        self._returned = 0  # tokens
        self._flushed = False
        self.begun += 1

    def set_language(self, prompt: int) -> None:
        """Changes the language from the next chunk on. prompt: its slot. Raises UsageError."""
        self._prompts = self._session.spec.check_prompts(1, [prompt])
        self.encoder_state = replace(self.encoder_state, prompt_index=np.array(self._prompts, np.int64))

    @property
    def tokens(self) -> list[int]:
        """Ids of the tokens so far, since the last `flush` that audio followed."""
        return self.decoded.tokens

    @property
    def n_final(self) -> int:
        """Number of `tokens` that audio to come cannot change."""
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
        """Time of the encoder frame on which each token was emitted, in seconds from the start of the stream.

        Frame j is at 80 j ms: where the subsampling is causal, that is the end of the audio that the frame depends on, else its
        middle. Its right context and the model's own habit put it before or behind the spoken sound. The last frame of an
        utterance may be up to one frame past its end.
        """
        return list(self.timed().seconds)

    @property
    def missing_samples(self) -> float:
        """Samples that have to follow until the next chunk is complete; inf of an offline model."""
        return 1 if self._flushed else self._chunker.missing_samples()

    @property
    def events(self) -> tuple[Event, ...]:
        """Ends of utterances among `tokens`, of a model that marks them."""
        return self.timed().events(self._session.spec.events)

    @property
    def pause_seconds(self) -> float:
        """Seconds of encoded audio since the end of the last token, or since the start of the utterance where there is none."""
        frames, durations = self.decoded.token_frames, self.decoded.token_durations
        end = frames[-1] + max(durations[-1], 1) if frames else 0
        return max(self.decoded.frame - end, 0) * self._session.spec.frame_seconds

    def timed(self, start: int = 0, stop: int | None = None) -> Timed:
        """Returns the tokens from `start` to `stop`, which is not included, by default all, with their times and confidence."""
        part, frame_s = slice(start, stop), self._session.spec.frame_seconds
        decoded = self.decoded
        return Timed(
            tuple(decoded.tokens[part]),
            tuple(self._start_s + frame * frame_s for frame in decoded.token_frames[part]),
            tuple(frames * frame_s for frames in decoded.token_durations[part]),
            tuple(decoded.token_confidences[part]),
        )

    def push(self, samples: np.ndarray) -> None:
        """Takes samples, f32 [n], mono, at the model's rate, and cuts chunks without running them; see `advance`. Raises
        AudioError, and UsageError for a stream that has ended."""
        _check_open(self._closed)
        if self._flushed:
            self._begin()
        self.chunks += self._chunker.feed(samples)
        self._fed += len(samples)

    def close(self) -> None:
        """Ends the audio: cuts the last chunks without running them. Raises UsageError for a stream that has ended."""
        _check_open(self._closed)
        self._closed = True
        self._cut_rest()

    def feed(self, samples: np.ndarray) -> list[int]:
        """Takes samples, f32 [n], mono, at the model's rate, runs the chunks that they complete and returns the ids of the tokens
        that became final. Raises as `push`."""
        self.push(samples)
        self._run()
        return self._new(self.n_final)

    def flush(self) -> list[int]:
        """Ends an utterance, not the stream: transcribes what was fed to its end and returns the ids of the remaining tokens.

        Audio that follows begins an utterance of its own, without the context of what was before; times go on. `tokens` and
        `timed` have the flushed utterance until then. An offline model transcribes each utterance here. Raises UsageError for a
        stream that has ended.
        """
        _check_open(self._closed)
        self._cut_rest()
        self._run()
        self._flushed = True
        return self._new(len(self.tokens))

    def finish(self) -> list[int]:
        """Ends the audio, runs the last chunks and returns the ids of the remaining tokens. Raises UsageError for a stream that
        was finished before."""
        _check_open(self._finished)
        self._finished = True
        if not self._closed:
            self.close()
        self._run()
        return self._new(len(self.tokens))

    def restart(self) -> None:
        """Lets the encoder begin anew behind a chunk whose frames are not finite, as after an overflow in fp16: its caches would
        spoil every later one. Text and times go on."""
        self.encoder_state = self._new_state()
        self.restarts += 1
        warnings.warn("The encoder gave frames that are not finite. It has begun anew.", RuntimeWarning, stacklevel=2)

    def _new_state(self) -> EncoderState:
        (state,) = self._session.unstack(self._session.initial_state(1, self._prompts))
        return looking(state, self.lookahead)

    def _cut_rest(self) -> None:
        """Cuts the last chunks of the utterance, once."""
        if not self._flushed:
            self.chunks += self._chunker.finish()

    def _run(self) -> None:
        while self.chunks:
            advance(self._session, [self])

    def _new(self, end: int) -> list[int]:
        start, self._returned = self._returned, end
        return self.tokens[start:end] if end > start else []  # a beam joins its tokens anew: hours of them for each packet


def _check_open(ended: bool) -> None:
    if ended:
        todo = "take a new one for the next recording"
        raise UsageError("This stream has ended.", expected="audio before its end", found="more behind it", todo=todo)


def advance(session: Session, streams: list[Stream]) -> list[np.ndarray]:
    """Runs the next chunk of each stream, in one batch per window size, and returns each stream's encoder frames.

    Streams in a batch may be at different places and have different amounts of audio left; a first window is shorter
    than a later one, so streams that have just joined form a batch of their own. Returns f32 [T', d_model] per stream,
    valid frames only, in the order of `streams`; an empty array for a stream without a chunk. A stream whose frames are not all
    finite yields no token in this chunk and begins anew, see `Stream.restart`.
    """
    out = [np.zeros((0, session.spec.encoder.d_model), np.float32) for _ in streams]
    # Whole utterances of any lengths share a batch, and so do windows of buffered streaming with the same contexts.
    alike = {i: s.chunks[0].mel.shape[1] if session.spec.streaming else s.lookahead for i, s in enumerate(streams) if s.chunks}
    for shared in sorted(dict.fromkeys(alike.values()), key=lambda one: one if isinstance(one, int) else 0):
        members = [i for i in alike if alike[i] == shared]
        batch = [streams[i] for i in members]
        chunks = [stream.chunks.pop(0) for stream in batch]
        state = session.stack([stream.encoder_state for stream in batch])
        frames, frame_lengths, state = session.encode(*stacked(chunks), state)
        frames, frame_lengths = _kept(chunks, frames, frame_lengths)
        for stream, new_state in zip(batch, session.unstack(state), strict=True):
            stream.encoder_state = new_state
        for row, stream in enumerate(batch):
            if not np.isfinite(frames[row, : frame_lengths[row]]).all():
                stream.restart()
                frames[row] = np.nan  # which nemoport/decode.py takes for blank, as the whole chunk is
        for kind in dict.fromkeys(type(stream.decoded) for stream in batch):  # greedy, or a beam search
            rows = [row for row, stream in enumerate(batch) if type(stream.decoded) is kind]
            kind.decode(session, frames[rows], frame_lengths[rows], [batch[row].decoded for row in rows])
        for row, i in enumerate(members):
            out[i] = frames[row, : frame_lengths[row]]
    return out


def _kept(chunks: list[Chunk], frames: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns those of the frames f32 [B, T', d_model], valid up to `lengths`, that are decoded, and how many of each stream."""
    if all(chunk.kept == (0, None) for chunk in chunks):
        return frames, lengths
    rows = [frame[:length][slice(*chunk.kept)] for chunk, frame, length in zip(chunks, frames, lengths, strict=True)]
    longest = max(map(len, rows))
    return np.stack([np.pad(row, ((0, longest - len(row)), (0, 0))) for row in rows]), np.array([len(row) for row in rows])
