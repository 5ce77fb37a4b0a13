"""Transcription of recordings: several at once in one batch, each in one pass or in windows that are merged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nemoport.errors import UsageError
from nemoport.long_audio import Timed, merge, windows
from nemoport.session import Session
from nemoport.spec import ModelSpec
from nemoport.stream import Stream, advance
from nemoport.trimming import sounding
from nemoport.words import Segment, Word

PASS_S, OVERLAP_S = 390.0, 15.0  # the longest pass of an offline model, as published, and the overlap of two windows
PACKET_S = 60  # fed to a streaming model at a time: the mel frames and windows of hours would be held at once


@dataclass(frozen=True)
class Hypothesis:
    """Transcript of one recording.

    id: the caller's name of the recording; text: without language tags; languages: those of the tags that a model with a prompt
    emits, in order; tokens: ids, with the tags. token_seconds: time of the encoder frame on which each token was emitted;
    token_duration_seconds: duration that a TDT model predicts with each token, 0 from an RNNT model; token_confidences: from 0 to
    1, see nemoport/confidence.py. words, segments: with their times, see nemoport/words.py. audio_seconds: length of the
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


@dataclass
class Recording:
    """A recording that is being transcribed. samples: f32 [n], mono, at the model's rate; passes: (start, end) in samples of each
    pass that is not finished, the current one first; stream: the current pass; parts: (start in seconds, tokens) of each
    finished pass."""

    id: str
    samples: np.ndarray
    passes: list[tuple[int, int]]
    stream: Stream
    parts: list[tuple[float, Timed]] = field(default_factory=list)
    position: int = 0  # of the next sample to feed
    closed: bool = False  # the current pass is fed to its end
    work_seconds: float = 0.0

    @property
    def tokens(self) -> Timed:
        """Tokens of the finished passes, merged."""
        return merge(self.parts)

    def feed_until_chunk(self, packet_samples: int) -> None:
        """Feeds packets until a chunk is cut, or the pass ends."""
        last = self.passes[0][1]
        while not self.stream.chunks and not self.closed:
            end = min(self.position + packet_samples, last) if packet_samples else last
            self.stream.push(self.samples[self.position : end])
            self.position = end
            if end >= last:
                self.stream.close()
                self.closed = True

    def pass_ended(self) -> bool:
        """Whether the current pass is fed and encoded to its end."""
        return self.closed and not self.stream.chunks

    def end_pass(self, spec: ModelSpec) -> None:
        """Keeps the tokens of the current pass."""
        start, _ = self.passes.pop(0)
        self.parts.append((start / spec.frontend.sample_rate_hz, self.stream.timed()))

    def begin_pass(self, stream: Stream) -> None:
        """Begins the next pass, in a new stream."""
        self.stream, self.position, self.closed = stream, self.passes[0][0], False


def passes(spec: ModelSpec, n_samples: int, pass_s: float) -> list[tuple[int, int]]:
    """Returns (start, end) in samples of each pass over a recording: one, or the windows of a long one for an offline model.

    pass_s: longest pass in seconds. Raises UsageError for a pass that is too short for two overlaps.
    """
    rate_hz = spec.frontend.sample_rate_hz
    if spec.streaming or n_samples <= pass_s * rate_hz:
        return [(0, n_samples)]
    return [(round(start * rate_hz), round(end * rate_hz)) for start, end in windows(n_samples / rate_hz, pass_s, OVERLAP_S)]


def pass_seconds(spec: ModelSpec, seconds: float | None) -> float:
    """Returns the longest pass. Raises UsageError for one of a streaming model, and for one that windows cannot overlap in."""
    if seconds is None:
        return PASS_S
    if spec.streaming:
        todo = "leave it out: its memory does not grow with the recording"
        raise UsageError("A streaming model has no passes.", expected="none", found=f"{seconds:g} s", todo=todo)
    if not seconds > 2 * OVERLAP_S:
        todo = "choose a longer one, or leave it out"
        raise UsageError("A pass is too short.", expected=f"more than {2 * OVERLAP_S:g} s", found=f"{seconds:g} s", todo=todo)
    return seconds


def trimming(spec: ModelSpec, trim: bool) -> bool:
    """Returns whether silence around a recording is left out. Raises UsageError for that of a streaming model."""
    if trim and spec.streaming:
        todo = "leave --trim-silence out: a streaming model normalises nothing over the recording"
        raise UsageError("A streaming model has no silence trimmed.", expected="an offline model", found=spec.kind, todo=todo)
    return trim


def transcribe(
    session: Session,
    utterances: Iterable[tuple[str, np.ndarray]],
    new_stream: Callable[[], Stream],
    pass_s: float = PASS_S,
    streams: int = 1,
    packet_samples: int = 0,
    trim_silence: bool = False,
) -> Iterator[Recording]:
    """Runs up to `streams` recordings at once in one batch: as one ends, the next one joins. Yields them in order of ending.

    utterances: (id, f32 [n] at the model's rate); new_stream: returns a stream of `session`; pass_s: longest pass of an offline
    model in seconds; packet_samples: samples that are fed at a time, 0 for as many as suit the model; trim_silence: leave
    out silence around each, as nemoport/trimming.py finds it; times stay those of the recording. Raises AudioError, UsageError.
    """
    if session.spec.streaming and not packet_samples:
        packet_samples = PACKET_S * session.spec.frontend.sample_rate_hz
    waiting = iter(utterances)
    running: list[Recording] = []
    while True:
        while len(running) < streams and (following := next(waiting, None)) is not None:
            name, samples = following
            first, end = sounding(samples, session.spec.frontend) if trim_silence else (0, len(samples))
            windows_of = [(first + a, first + b) for a, b in passes(session.spec, end - first, pass_s)]
            running.append(Recording(name, samples, windows_of, new_stream(), position=first))
        if not running:
            return
        started = time.perf_counter()
        for recording in running:
            recording.feed_until_chunk(packet_samples)
        advance(session, [recording.stream for recording in running])
        share = (time.perf_counter() - started) / len(running)
        for recording in running:
            recording.work_seconds += share
        for recording in [recording for recording in running if recording.pass_ended()]:
            recording.end_pass(session.spec)
            if recording.passes:
                recording.begin_pass(new_stream())
            else:
                running.remove(recording)
                yield recording
