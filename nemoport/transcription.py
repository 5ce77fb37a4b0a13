"""Transcription of recordings: several at once in one batch, each in one pass or in windows that are merged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nemoport.buffered import ChunkContext
from nemoport.errors import AudioError, UsageError
from nemoport.events import Event
from nemoport.inputs import Samples, Source
from nemoport.long_audio import Timed, merge
from nemoport.session import Session
from nemoport.spec import Lookahead, ModelSpec
from nemoport.stream import Stream, advance
from nemoport.trimming import sounding
from nemoport.words import Segment, Word, segments_of

PASS_S, OVERLAP_S = 390.0, 15.0  # the longest pass of an offline model, as published, and the overlap of two windows
PACKET_S = 60  # read and fed at a time: the mel frames and windows of hours would be held at once
BUFFERED_PACKET_S = 1  # of buffered streaming, whose windows overlap by most of their length


@dataclass(frozen=True)
class Hypothesis:
    """Transcript of one recording.

    id: the caller's name of the recording; text: without language tags and events; languages: those of the tags that a model with
    a prompt emits, in order; tokens: ids, with tags and events. token_seconds: time of the frame on which each token was emitted;
    token_duration_seconds: duration that a TDT model predicts with each token, 0 from an RNNT model; token_confidences: from 0 to
    1, see nemoport/confidence.py. words, segments: with their times, see nemoport/words.py. events: ends of utterances that the
    model marks, see nemoport/events.py. audio_seconds: length of the
    recording; work_seconds: computing time of the batches that it was in, shared evenly among their streams."""

    id: str
    text: str
    languages: tuple[str, ...]
    tokens: tuple[int, ...]
    token_seconds: tuple[float, ...]
    token_duration_seconds: tuple[float, ...]
    token_confidences: tuple[float, ...]
    words: tuple[Word, ...]
    segments: tuple[Segment, ...]
    audio_seconds: float
    work_seconds: float
    events: tuple[Event, ...] = ()

    @staticmethod
    def of(
        id: str,
        timed: Timed,
        text: str,
        languages: tuple[str, ...],
        words: tuple[Word, ...],
        audio_seconds: float,
        work_seconds: float,
        events: tuple[Event, ...],
    ) -> Hypothesis:
        """Returns the transcript of tokens, with the segments of their words."""
        return Hypothesis(
            id=id,
            text=text,
            languages=languages,
            tokens=timed.tokens,
            token_seconds=timed.seconds,
            token_duration_seconds=timed.durations,
            token_confidences=timed.confidences,
            words=words,
            segments=segments_of(words),
            audio_seconds=audio_seconds,
            work_seconds=work_seconds,
            events=events,
        )


@dataclass
class Recording:
    """A recording that is being transcribed. stream: the current pass; parts: (start in seconds, tokens) of each before."""

    id: str
    source: Source
    stream: Stream
    spec: ModelSpec
    pass_samples: int | None  # of a window of a long recording; None: one pass, whatever its length
    trim: bool = False  # leave out silence around it
    parts: list[tuple[float, Timed]] = field(default_factory=list)
    start: int = 0  # sample of the current pass
    count: int = 0  # samples read, without silence that is left out
    left_out: tuple[int, int] = (0, 0)  # samples before and behind
    closed: bool = False  # the current pass is fed to its end
    last: bool = False  # the current pass is the last one
    work_seconds: float = 0.0
    _held: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # read, from the sample `_first` on
    _first: int = 0

    @property
    def tokens(self) -> Timed:
        """Tokens of the finished passes, merged."""
        return merge(self.parts)

    @property
    def length(self) -> int:
        """Number of its samples, as far as they were read."""
        return self.count + sum(self.left_out)

    def feed_until_chunk(self, packet_samples: int) -> None:
        """Feeds packets until a chunk is cut, or the pass ends. Raises AudioError."""
        if self.trim:
            self._trim(packet_samples)
        while not self.stream.chunks and not self.closed:
            if self.pass_samples is None:
                packet = self.source.read(packet_samples)
                self.count += len(packet)
                self.last = ended = len(packet) < packet_samples
            else:
                packet, ended = self._window(self.pass_samples), True
            for at in range(0, len(packet), packet_samples):
                self.stream.push(packet[at : at + packet_samples])
            if ended:
                self.stream.close()
                self.closed = True

    def _trim(self, packet_samples: int) -> None:
        packets = [self.source.read(packet_samples)]
        while len(packets[-1]) == packet_samples:
            packets.append(self.source.read(packet_samples))
        whole = np.concatenate(packets)
        first, end = sounding(whole, self.spec.frontend)
        self.source, self.left_out, self.trim = Samples(whole[first:end]), (first, len(whole) - end), False

    def _window(self, size: int) -> np.ndarray:
        """Reads the samples of the current pass; the last one is as long as the others and ends with the recording."""
        missing = self.start + size + 1 - self.count
        more = self.source.read(missing)
        self.count += len(more)
        self._held = np.concatenate([self._held, more])
        if len(more) < missing:
            self.last, self.start = True, max(0, self.count - size)
        window = self._held[self.start - self._first :][:size]
        self._held, self._first = self._held[self.start - self._first :], self.start
        return window

    def pass_ended(self) -> bool:
        """Whether the current pass is fed and encoded to its end."""
        return self.closed and not self.stream.chunks

    def end_pass(self) -> None:
        """Keeps the tokens of the current pass."""
        start = self.left_out[0] + self.start
        self.parts.append((start / self.spec.frontend.sample_rate_hz, self.stream.timed()))

    def begin_pass(self, stream: Stream) -> None:
        """Begins the next pass, in a new stream."""
        assert self.pass_samples
        overlap = overlap_samples(self.pass_samples, self.spec.frontend.sample_rate_hz)
        self.stream, self.start, self.closed = stream, self.start + self.pass_samples - overlap, False


def overlap_samples(pass_samples: int, rate_hz: int) -> int:
    """Returns the overlap of two windows: OVERLAP_S, or a quarter of windows that are too short for that."""
    overlap = round(OVERLAP_S * rate_hz)
    return overlap if pass_samples > 2 * overlap else pass_samples // 4


def pass_seconds(spec: ModelSpec, seconds: float | None, longest_s: float | None = None, lookahead: Lookahead = None) -> float:
    """Returns the longest pass, inf for buffered streaming. longest_s: that of graphs of fixed shapes. Raises UsageError for one
    of a model that streams, for one that windows cannot overlap in, and for one that the graphs cannot take."""
    by_window = isinstance(lookahead, ChunkContext)
    if seconds is None:
        return math.inf if by_window else min(PASS_S, longest_s or PASS_S)
    if spec.streaming or by_window:
        todo = "leave it out: its memory does not grow with the recording"
        raise UsageError("A streaming model has no passes.", expected="none", found=f"{seconds:g} s", todo=todo)
    if longest_s is not None and not 0 < seconds <= longest_s:
        todo = "leave it out, or export the checkpoint with longer windows (--windows)"
        raise UsageError("A pass does not fit.", expected=f"at most {longest_s:g} s", found=f"{seconds:g} s", todo=todo)
    if longest_s is None and not seconds > 2 * OVERLAP_S:
        todo = "choose a longer one, or leave it out"
        raise UsageError("A pass is too short.", expected=f"more than {2 * OVERLAP_S:g} s", found=f"{seconds:g} s", todo=todo)
    return seconds


def trimming(spec: ModelSpec, trim: bool, lookahead: Lookahead = None) -> bool:
    """Returns whether silence around a recording is left out. Raises UsageError for that of a streaming model."""
    if trim and (spec.streaming or isinstance(lookahead, ChunkContext)):
        todo = "leave --trim-silence out: a streaming model normalises nothing over the recording"
        raise UsageError("A streaming model has no silence trimmed.", expected="an offline model", found=spec.kind, todo=todo)
    return trim


Request = tuple[str, Source, Callable[[], Stream]]  # id, samples, and what makes a stream for them


def transcribe(
    session: Session,
    requests: Iterable[Request],
    pass_s: float = PASS_S,
    streams: int = 1,
    packet_samples: int = 0,
    trim_silence: bool = False,
    failed: Callable[[str, AudioError], None] | None = None,
) -> Iterator[Recording]:
    """Runs up to `streams` recordings at once in one batch: as one ends, the next one joins. Yields them in order of ending.

    pass_s: longest pass of an offline model in seconds; packet_samples: samples that are fed at a time, 0
    for as many as suit the model; trim_silence: leave out silence around each, as nemoport/trimming.py finds it in the whole,
    which is held for that; times stay those of the recording; failed: is called with the id and the error of a recording that
    cannot be used, and the others go on. Raises AudioError without it.
    """
    rate_hz = session.spec.frontend.sample_rate_hz
    pass_samples = None if session.spec.streaming or pass_s == math.inf else round(pass_s * rate_hz)
    waiting = iter(requests)
    running: list[tuple[Recording, Callable[[], Stream]]] = []
    while True:
        while len(running) < streams and (following := next(waiting, None)) is not None:
            name, source, new_stream = following
            recording = Recording(name, source, new_stream(), session.spec, pass_samples, trim=trim_silence)
            running.append((recording, new_stream))
        if not running:
            return
        started = time.perf_counter()
        for one in list(running):
            try:
                packet_s = BUFFERED_PACKET_S if isinstance(one[0].stream.lookahead, ChunkContext) else PACKET_S
                one[0].feed_until_chunk(packet_samples or packet_s * rate_hz)
            except AudioError as error:
                if not failed:
                    raise
                running.remove(one)
                failed(one[0].id, error)
        advance(session, [recording.stream for recording, _ in running])
        share = (time.perf_counter() - started) / max(1, len(running))
        for recording, _ in running:
            recording.work_seconds += share
        for one in [one for one in running if one[0].pass_ended()]:
            recording, new_stream = one
            recording.end_pass()
            if recording.last:
                running.remove(one)
                yield recording
            else:
                recording.begin_pass(new_stream())
