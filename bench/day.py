"""A day of audio through one stream, and through a batch whose members join and leave: memory, cost and times, hour by hour.

    python bench/day.py --build build/streaming-en [--variants kv-int8-weight fp32] [--hours 24] [--streams 1 8] [--seed 0]

The audio is the committed speech (plain, telephone, in noise, clipped) between silence, noise and digital zero, mixed with a
seed. Each hour ends with the same probe: digital zero for longer than the encoder can look back, then some utterances; a fresh
stream runs on it too. Printed for each hour: resident memory, the bytes that the stream refers to, processor time a chunk,
tokens, and how far the probe's tokens and times differ. Exit code 1 and the reason where
a figure does not suit a stream without an end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from endless import HOUR_S, PACKET_MS, Hour, Probe, Scenes, one_stream

from nemoport.recognizer import Recognizer
from nemoport.transcription import Hypothesis
from nemoport.variant import instruction_set

MOST_RESIDENT_BYTES = 16 << 20  # that memory may grow by from the second hour to the last, beside the tokens
MOST_COST = 1.2  # of a chunk at the end, by that in a fresh stream; other work on the machine is in both
MOST_UNLIKE = 0.1  # of the probe's tokens are not in a fresh stream, or on another frame; a drift by one frame moves all
EVERY = 50  # one of so many recordings of a batch is transcribed alone, too


class ClockedSession:
    """A session that notes the processor time of each chunk of a batch, by the streams in it."""

    def __init__(self, session: Any):
        self.session, self.costs = session, []
        self.at = self.streams = self.width = 0  # of the chunk that runs; width: of its window

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: Any) -> Any:
        now, width = time.process_time(), mel.shape[2]
        if width <= self.width:  # not the later windows of a chunk whose first windows have just run
            self.costs.append((1000 * (now - self.at) / self.streams, f"for each of {self.streams} streams"))
            self.at, self.streams = now, 0
        self.at, self.streams, self.width = self.at or now, self.streams + len(lengths), width
        return self.session.encode(mel, lengths, state)


class Batch:
    """Recordings of 1 to 120 s in a batch of `streams`: as one ends, the next one joins. compared: tokens of the recordings
    that were transcribed alone, too; differing: those of them that are others, or at another time, in the batch."""

    def __init__(self, recognizer: Recognizer, seed: int, streams: int):
        self.recognizer, self.streams, self.compared, self.differing = recognizer, streams, 0, 0
        self.scenes, self.clock = Scenes(recognizer.sample_rate_hz, seed), ClockedSession(recognizer.session)
        self.kept: dict[str, np.ndarray] = {}

    def hours(self, hours: int, hour_s: float = HOUR_S) -> Iterator[Hour]:
        """Yields the figures of each hour of audio that the recordings make up together."""
        audio_s, tokens, done, packet_samples = 0.0, 0, 1, PACKET_MS * self.scenes.rate_hz // 1000
        clocked = copy(self.recognizer)
        clocked.session = self.clock  # pyright: ignore[reportAttributeAccessIssue]
        recordings = self._recordings(hours * hour_s)
        for hypothesis in clocked.transcribe(recordings, streams=self.streams, packet_samples=packet_samples):
            audio_s, tokens = audio_s + hypothesis.audio_seconds, tokens + len(hypothesis.tokens)
            if hypothesis.id in self.kept:
                self._compare(hypothesis)
            if audio_s >= done * hour_s:
                yield Hour.of(self.clock.costs, tokens)
                self.clock.costs, tokens, done = [], 0, done + 1

    def _recordings(self, seconds: float) -> Iterator[tuple[str, np.ndarray]]:
        number, rate_hz = 0, self.scenes.rate_hz
        while seconds > 0:
            started = time.process_time()
            samples = np.concatenate([*self.scenes.pieces(int(self.scenes.random.uniform(1, 120) * rate_hz))])
            if number % EVERY == 0:
                self.kept[str(number)] = samples
            self._leave_out(started)
            yield str(number), samples
            seconds, number = seconds - len(samples) / rate_hz, number + 1

    def _compare(self, hypothesis: Hypothesis) -> None:
        started = time.process_time()
        (alone,) = self.recognizer.transcribe([(hypothesis.id, self.kept.pop(hypothesis.id))])
        pairs = [set(zip(h.tokens, h.token_seconds, strict=True)) for h in (alone, hypothesis)]
        self.compared += len(pairs[0])
        self.differing += len(pairs[0] - pairs[1])
        self._leave_out(started)

    def _leave_out(self, started: float) -> None:
        """Leaves what was done since `started` out of the cost of the chunk that runs."""
        if self.clock.at:
            self.clock.at += time.process_time() - started


def problems(hours: list[Hour]) -> Iterator[str]:
    """Yields what does not suit a stream without an end. hours: of one stream or a batch, in order."""
    first, last = hours[min(1, len(hours) - 1)], hours[-1]
    token_bytes = last.held.token_bytes - first.held.token_bytes if first.held and last.held else 0
    if (grown := last.resident_bytes - first.resident_bytes - token_bytes) > MOST_RESIDENT_BYTES:
        yield f"resident memory grew by {grown / 1e6:.1f} MB beside the tokens"
    if last.older > MOST_COST:
        yield f"a chunk costs {last.older:.2f} of what it costs in a fresh stream"
    if first.held and last.held and last.held.other_bytes > first.held.other_bytes + 4096:
        yield f"the stream holds {last.held.other_bytes} bytes beside its tokens, {first.held.other_bytes} in the second hour"
    for number, hour in enumerate(hours, 1):
        if (unlike := unlike_tokens(hour.probe, hour.fresh)) > MOST_UNLIKE * len(hour.fresh[0]):
            yield f"in hour {number} {unlike} tokens of the probe are not where a fresh stream has them"


def table(title: str, columns: list[str], rows: Iterator[list[str]]) -> None:
    """Prints a table, each row as it comes."""
    print(f"\n{title}:\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


COLUMNS = ["hour", "resident MB", "ms a chunk", "99 %", "longest", "stalls", "tokens"]
OF_STREAM = [
    "MB of tokens",
    "other bytes",
    "largest counter",
    "cost by a fresh stream's",
    "tokens of the probe",
    "unlike hour 1",
    "unlike a fresh stream",
]


def stream_rows(run: Iterator[Hour], hours: list[Hour]) -> Iterator[list[str]]:
    """Yields the row of each hour and puts the hour into `hours`."""
    for number, hour in enumerate(run, 1):
        hours.append(hour)
        assert hour.held
        counter, name = hour.held.counter
        unlike = [unlike_tokens(hour.probe, other) for other in (hours[0].probe, hour.fresh)]
        held = [f"{hour.held.token_bytes / 1e6:.2f}", str(hour.held.other_bytes), f"{name} {counter}"]
        yield [str(number), *hour.figures(), *held, f"{hour.older:.2f}", str(len(hour.probe[0])), *map(str, unlike)]


def batch_rows(run: Iterator[Hour], hours: list[Hour]) -> Iterator[list[str]]:
    """Yields the row of each hour and puts the hour into `hours`."""
    for number, hour in enumerate(run, 1):
        hours.append(hour)
        yield [str(number), *hour.figures()]


def unlike_tokens(one: Probe, other: Probe) -> int:
    """Tokens at a frame that are in one and not in the other."""
    return len(set(zip(*one, strict=True)) ^ set(zip(*other, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=["kv-int8-weight", "fp32", "kv-int8-dynamic"])
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8], help="1: one stream; more: a batch of so many")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = False
    print(f"{instruction_set()}, 1 thread, seed {options.seed}, packets of {PACKET_MS} ms")
    for variant in options.variants:
        for streams in options.streams:
            recognizer, hours = Recognizer.open(options.build / variant, threads=1), []
            if streams == 1:
                rows = stream_rows(one_stream(recognizer, options.seed, options.hours), hours)
                table(f"{variant}, one stream", COLUMNS + OF_STREAM, rows)
            else:
                group = Batch(recognizer, options.seed, streams)
                table(f"{variant}, {streams} streams in a batch", COLUMNS, batch_rows(group.hours(options.hours), hours))
                print(f"\n{group.differing} of {group.compared} tokens differ where a recording is alone")
            for number, hour in enumerate(hours, 1):
                print(*(f"stall in hour {number}: {stall}\n" for stall in hour.stalls), sep="", end="")
            for problem in problems(hours):
                failed = True
                print(f"PROBLEM: {problem}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
