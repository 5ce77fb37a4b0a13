"""Utterances of a live stream, each as it ends: by a pause, by an event of the model's (nemoport/events.py), or by its length.

The stream goes on through all of them, so the text is that of the stream without utterances. A pause shows in the times of tokens
alone, so packets of any size give the same utterances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nemoport.errors import UsageError
from nemoport.events import Event
from nemoport.spec import ModelSpec
from nemoport.stream import Stream
from nemoport.words import Segment, Word, WordTimes

ROUNDING_S = 1e-6  # times are multiples of a frame, in floats


@dataclass(frozen=True)
class EndRule:
    """When an utterance ends: after `pause_s` seconds without a token behind its last one; with an event; before a
    word that would make it longer than `longest_s` seconds. Raises UsageError for times that are not above 0."""

    pause_s: float = 0.8
    longest_s: float = float("inf")

    def __post_init__(self):
        for name, value in (("pause", self.pause_s), ("longest utterance", self.longest_s)):
            if not value > 0:
                todo = "leave it out for the default, or choose inf for none"
                raise UsageError(f"There is no {name} of {value:g} s.", expected="above 0", found=f"{value:g}", todo=todo)


class Utterances:
    """A live stream that is fed here and gives its utterances."""

    def __init__(self, stream: Stream, words: WordTimes, spec: ModelSpec, rule: EndRule):
        """stream: a new one, of a streaming model; words: new too; spec: the model's."""
        self.stream, self._word_times, self._rule, self._spec = stream, words, rule, spec
        self._taken, self._begun = 0, stream.begun  # tokens of the stream, since it began or was flushed
        self._words: list[Word] = []  # of the utterance so far
        self._last_end = 0.0  # of the last token

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """Takes samples, f32 [n], mono, at the model's rate, and returns the utterances that have ended. Raises as
        `Stream.feed`."""
        self.stream.feed(samples)
        return self.collect()

    def collect(self) -> list[Segment]:
        """Returns the utterances that have ended in the chunks that `advance` has run for the stream since."""
        ended = list(self._take(self.stream.n_final))
        if self._taken == len(self.stream.tokens) and self._is_pause(self.stream.pause_seconds):
            ended += self._end()
        return ended

    @property
    def words(self) -> Sequence[Word]:
        """Words of the utterance that has not ended, as far as they are complete and final."""
        return tuple(self._words)

    @property
    def incomplete(self) -> str:
        """Text of the word behind them, which may go on."""
        return self._word_times.incomplete

    @property
    def text(self) -> str:
        """Text of the utterance that has not ended, as far as it is final."""
        return " ".join([word.text for word in self._words] + [self._word_times.incomplete]).strip()

    def flush(self) -> list[Segment]:
        """Ends the utterance here, as `Stream.flush` does, and returns what has ended. Audio that follows is fed as before."""
        self.stream.flush()
        return [*self._take(len(self.stream.tokens)), *self._end()]

    def finish(self) -> list[Segment]:
        """Ends the audio and returns the remaining utterances. Raises as `Stream.finish`."""
        self.stream.finish()
        return [*self._take(len(self.stream.tokens)), *self._end()]

    def _take(self, stop: int) -> Iterator[Segment]:
        if self._begun != self.stream.begun:
            self._taken, self._begun = 0, self.stream.begun
        timed = self.stream.timed(self._taken, stop)
        self._taken = max(stop, self._taken)
        for at in range(len(timed.tokens)):
            one = timed.slice(at, at + 1)
            if event := next(iter(one.events(self._spec.events)), None):
                yield from self._add(self._word_times.feed(one))
                yield from self._end(event)
                continue
            if self._is_pause(timed.seconds[at] - self._last_end):
                yield from self._end()
            self._last_end = timed.seconds[at] + max(timed.durations[at], self._spec.frame_seconds)
            yield from self._add(self._word_times.feed(one))

    def _is_pause(self, seconds: float) -> bool:
        return seconds >= self._rule.pause_s - ROUNDING_S

    def _add(self, words: Sequence[Word]) -> Iterator[Segment]:
        for word in words:
            if self._words and word.end - self._words[0].start > self._rule.longest_s + ROUNDING_S:
                yield Segment(tuple(self._words))
                self._words = []
            self._words.append(word)

    def _end(self, event: Event | None = None) -> Iterator[Segment]:
        yield from self._add(self._word_times.finish())
        if self._words:
            yield Segment(tuple(self._words), event)
            self._words = []
