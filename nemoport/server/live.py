"""One session: audio of a client in, events out. A thread of the batcher feeds it and encodes its chunks with those of others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from nemoport.audio import RATES_HZ
from nemoport.errors import AudioError, NemoportError, UsageError
from nemoport.recognizer import Recognizer
from nemoport.resampler import Resampler
from nemoport.server.actions import OPUS, Audio, End, Ended, Event, Flush, Flushed, Language, Start, Update, Utterance
from nemoport.server.opus import RATE_HZ as OPUS_HZ
from nemoport.server.opus import OpusDecoder
from nemoport.utterances import Utterances
from nemoport.words import Segment

Item = Audio | Flush | Language | End
Deliver = Callable[[Sequence[Event], NemoportError | None], None]  # called in a thread of the batcher


class Live:
    """A session. `feed` and `collect` are called by one thread at a time."""

    def __init__(self, recognizer: Recognizer, start: Start, deliver: Deliver):
        """recognizer: with the settings of the session, of a model that streams. Raises UsageError."""
        utterances = recognizer.utterances(start.rule)
        if not isinstance(utterances, Utterances):
            raise UsageError(
                "This model takes whole recordings.",
                expected="a model that streams",
                found=recognizer.session.spec.kind,
                todo="send the recording to /v1/audio/transcriptions, or choose another model",
            )
        self.rate_hz = start.rate_hz or (OPUS_HZ if start.format == OPUS else recognizer.sample_rate_hz)
        if not RATES_HZ[0] <= self.rate_hz <= RATES_HZ[1]:
            expected = f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz"
            raise UsageError(
                "There is no such sample rate.", expected=expected, found=str(self.rate_hz), todo="name the right one"
            )
        self._recognizer, self._utterances, self.deliver = recognizer, utterances, deliver
        self._resampler = Resampler(self.rate_hz, recognizer.sample_rate_hz)
        self._decode = OpusDecoder(self.rate_hz).feed if start.format == OPUS else _pcm16
        self._progress = start.progress
        self._fed = self._shown = self._number = 0  # samples; words of the utterance that were shown; utterances
        self._before = ("", "")  # text and tentative text that were shown
        self._is_closed = False
        self._held: deque[Item] = deque()  # that wait until chunks before them are encoded
        self.began_s = time.monotonic()
        # Shared with the connection, under the batcher's lock.
        self.items: list[Item] = []
        self.waiting_samples = 0  # in `items`, at `rate_hz`
        self.missing_samples = self._missing()
        self.is_urgent = self.is_busy = False
        self.is_awaited = False  # the connection waits until a batch takes what waits
        self.ready_s = 0.0  # when what completes a chunk was received

    @property
    def stream(self):
        """The stream, for `advance`."""
        return self._utterances.stream

    @property
    def is_ready(self) -> bool:
        """Whether a thread can do something for it. Under the batcher's lock."""
        return not self.is_busy and bool(
            self.stream.chunks or self._held or self.is_urgent or self.waiting_samples >= self.missing_samples
        )

    @property
    def ahead_s(self) -> float:
        """Seconds by which the audio that was fed is ahead of real time: those that lag most come first."""
        return self._fed / self._recognizer.sample_rate_hz - (time.monotonic() - self.began_s)

    def feed(self, items: Sequence[Item]) -> list[Event]:
        """Takes what was received and cuts chunks. Returns the events of utterances that the client ended. Raises AudioError,
        UsageError."""
        events: list[Event] = []
        self._held.extend(items)
        while self._held:
            if isinstance(self._held[0], Language) and self.stream.chunks:  # these have the language before
                break
            match self._held.popleft():
                case Audio(data):
                    self._push(self._resampler.feed(self._decode(data)))
                case Language(name):
                    prompt = self._recognizer.session.spec.prompt
                    if prompt is None:
                        todo = "leave it out"
                        raise UsageError("This model has no language prompt.", expected="no language", found=name, todo=todo)
                    self.stream.set_language(prompt.slot(name))
                case Flush():
                    events += [*self._ended(self._utterances.flush()), Flushed(self._number - 1)]
                case End():
                    self._push(self._resampler.finish())
                    self.stream.close()
                    self._is_closed = True
        return events

    def collect(self, *, had_chunk: bool) -> list[Event]:
        """Returns the events of what was fed and has run since. had_chunk: whether a chunk has run."""
        if self._is_closed and not self.stream.chunks:
            return [*self._ended(self._utterances.finish()), Ended(self._seconds)]
        events = self._ended(self._utterances.collect())
        words = self._utterances.words
        text = " ".join(word.text for word in words)
        tentative = self._utterances.incomplete + self._recognizer.text(self.stream.tokens[self.stream.n_final :])
        if (self._progress and had_chunk) or (text, tentative) != self._before or len(words) > self._shown:
            events.append(Update(words[self._shown :], text, tentative, self._seconds))
        self._shown, self._before = len(words), (text, tentative)
        return events

    def update_missing(self) -> None:
        """Finds how many samples the next chunk needs. Under the batcher's lock."""
        self.missing_samples = self._missing()

    @property
    def _seconds(self) -> float:
        return self._fed / self._recognizer.sample_rate_hz

    def _missing(self) -> int:
        return max(1, int(self.stream.missing_samples * self.rate_hz / self._recognizer.sample_rate_hz))

    def _push(self, samples: np.ndarray) -> None:
        self.stream.push(samples)
        self._fed += len(samples)

    def _ended(self, segments: Sequence[Segment]) -> list[Event]:
        events: list[Event] = []
        for segment in segments:
            events.append(Utterance(self._number, segment, segment.words[self._shown :]))
            self._number += 1
            self._shown, self._before = 0, ("", "")
        return events


def _pcm16(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)


def check_pcm16(data: bytes) -> int:
    """Returns how many samples 16-bit audio holds. Raises AudioError for half a sample."""
    if len(data) % 2:
        raise AudioError(
            "The audio ends within a sample.",
            expected="16-bit samples, two bytes each, little-endian, mono",
            found=f"{len(data)} bytes",
            todo="send whole samples in each message",
        )
    return len(data) // 2
