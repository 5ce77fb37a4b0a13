"""Audio without an end, and a stream that runs on it hour by hour: what bench/day.py and tests/test_day.py measure with."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loop import resident_bytes

from nemoport.recognizer import Recognizer
from nemoport.speech.conditions import noisy, telephone
from nemoport.speech.corpus import read_corpus
from nemoport.stream import Stream

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio"
HOUR_S, PACKET_MS, ZERO_S, PROBE_UTTERANCES = 3600.0, 100, 45, 6
TOKEN_LISTS = (
    "tokens",
    "token_frames",
    "token_durations",
    "token_confidences",
)  # what a stream keeps by design: a number in each for each token
STALL = 10.0  # times the median cost of a chunk


class Scenes:
    """Endless audio from a seed. All is f32 [n], mono, at `rate_hz`."""

    def __init__(self, rate_hz: int, seed: int):
        self.rate_hz, self.random = rate_hz, np.random.default_rng(seed)
        clips = [
            u.samples() for name in ("eval", "calibration") for u in read_corpus(AUDIO / f"{name}.jsonl", rate_hz).utterances
        ]
        self.clips = {
            "plain": clips,
            "telephone": [telephone(clip, rate_hz) for clip in clips],
            "in noise": [noisy(10.0)(clip, rate_hz, self.random) for clip in clips],
            "clipped": [np.clip(30 * clip, -1, 1) for clip in clips],
        }
        self.noise = self.random.standard_normal(60 * rate_hz, np.float32)
        self.probe = np.concatenate(
            [np.zeros(ZERO_S * rate_hz, np.float32), *clips[:PROBE_UTTERANCES], np.zeros(4 * rate_hz, "f4")]
        )

    def scene(self) -> np.ndarray:
        """Returns an utterance, or up to a minute without one."""
        kind = str(self.random.choice(["speech", "silence", "noise", "zero"], p=[0.85, 0.06, 0.04, 0.05]))
        if kind == "speech":
            clips = self.clips[str(self.random.choice(list(self.clips), p=[0.4, 0.25, 0.2, 0.15]))]
            return clips[self.random.integers(len(clips))]
        n = int(self.rate_hz * self.random.uniform(0.5, 60))
        return self.noise[:n] * np.float32({"silence": 3e-4, "noise": 0.1, "zero": 0.0}[kind])

    def pieces(self, n_samples: int) -> Iterator[np.ndarray]:
        """Yields scenes of so many samples together."""
        while n_samples > 0:
            piece = self.scene()[:n_samples]
            n_samples -= len(piece)
            yield piece


def referred(root: Any, stop: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yields each object that `root` refers to, itself included, with the name of the attribute that leads to it. stop: what is
    left out, with all that only it refers to; the numbers in TOKEN_LISTS are left out too."""
    seen, waiting = set(map(id, stop)), [("", root)]
    while waiting:
        name, one = waiting.pop()
        if id(one) in seen or isinstance(one, type) or callable(one):
            continue
        seen.add(id(one))
        yield name, one
        if isinstance(one, dict):
            waiting += [(str(key), value) for key, value in one.items()]
        elif isinstance(one, list | tuple | set) and name not in TOKEN_LISTS:
            waiting += [(name, value) for value in one]
        elif isinstance(one, np.ndarray):
            waiting.append((name, one.base))
        elif hasattr(one, "__dict__"):
            waiting.append((name, vars(one)))


def _bytes(one: Any) -> int:
    """The size of an object; of an array that a runtime returned, with the memory that is not numpy's."""
    foreign = isinstance(one, np.ndarray) and not one.flags.owndata and not isinstance(one.base, np.ndarray)
    return sys.getsizeof(one) + (one.nbytes if foreign else 0)


@dataclass(frozen=True)
class Held:
    """What a stream holds, in bytes: its lists of tokens, all else; and the largest counter in it, with its name."""

    token_bytes: int
    other_bytes: int
    counter: tuple[int, str]

    @staticmethod
    def by(stream: Stream, session: Any) -> Held:
        """Measures a stream. session: is not its own."""
        all_of = list(referred(stream, (session, session.spec)))
        counters = [(one, name) for name, one in all_of if isinstance(one, int)]
        tokens = [
            (one, [n for n in one if n > 256]) for name, one in all_of if name in TOKEN_LISTS
        ]  # CPython has the others once
        others = sum(_bytes(one) for name, one in all_of if name not in TOKEN_LISTS)
        return Held(sum(_bytes(one) + sum(map(sys.getsizeof, own)) for one, own in tokens), others, max(counters))


Probe = tuple[list[int], list[int]]  # tokens; encoder frames from the probe's start
Costs = list[tuple[float, str]]  # of each chunk in ms, and what is known of it


@dataclass(frozen=True)
class Hour:
    """Figures of an hour of audio. costs_ms: median, 99 % and the most processor time of a chunk; stalls: the chunks that cost
    more than STALL times the median; probe, fresh: what this stream and a fresh one made of the probe; older: the median cost of
    its chunks, by that in the fresh stream, packet by packet in turn."""

    costs_ms: tuple[float, float, float]
    stalls: list[str]
    tokens: int
    resident_bytes: int
    probe: Probe = ([], [])
    fresh: Probe = ([], [])
    older: float = 1.0
    held: Held | None = None

    @staticmethod
    def of(costs: Costs, tokens: int, **probed: Any) -> Hour:
        """probed: the fields about the probe."""
        ms = [ms for ms, _ in costs]
        middle = statistics.median(ms)
        stalls = [f"{ms:.1f} ms {what}" for ms, what in costs if ms > STALL * middle]
        return Hour((middle, float(np.percentile(ms, 99)), max(ms)), stalls, tokens, resident_bytes(), **probed)

    def figures(self) -> list[str]:
        """Cells of a table: resident MB; median, 99 % and most of the costs; stalls; tokens."""
        costs = (f"{ms:.2f}" for ms in self.costs_ms)
        return [f"{self.resident_bytes / 1e6:.1f}", *costs, str(len(self.stalls)), str(self.tokens)]


class Live:
    """A stream that is fed and clocked. costs: of its chunks since they were taken; chunk_samples: from one to the next."""

    def __init__(self, recognizer: Recognizer):
        spec, lookahead = recognizer.session.spec, recognizer.lookahead
        assert lookahead is not None
        self.recognizer, self.stream, self.samples, self.chunk_frames = recognizer, recognizer.stream(), 0, lookahead + 1
        self.chunk_samples = spec.frontend.hop_samples * spec.require_streaming().chunk_mel_frames(lookahead, first=False)
        self.costs: Costs = []
        self._spent, self._collected = 0.0, 0  # processor time of the chunk so far; full garbage collections up to it

    def run_hour(self, pieces: Iterator[np.ndarray], probe: np.ndarray) -> Hour:
        """Feeds pieces, which must end where a chunk does, and then the probe, which a fresh stream runs on too."""
        tokens, fresh, size = len(self.stream.tokens), Live(self.recognizer), PACKET_MS * self.recognizer.sample_rate_hz // 1000
        for piece in pieces:
            for at in range(0, len(piece), size):
                self.feed(piece[at : at + size])
        costs, self.costs = self.costs, []
        start = self.next_frame()
        for at in range(0, len(probe), size):
            for live in (self, fresh):
                live.feed(probe[at : at + size])
        older = statistics.median(ms for ms, _ in self.costs) / statistics.median(ms for ms, _ in fresh.costs)
        costs, self.costs = costs + self.costs, []
        return Hour.of(
            costs,
            len(self.stream.tokens) - tokens,
            probe=self.since(start),
            fresh=fresh.since(0),
            older=older,
            held=Held.by(self.stream, self.recognizer.session),
        )

    def next_frame(self) -> int:
        """Returns the encoder frame that the next sample begins. Raises ValueError within a chunk."""
        if self.samples % self.chunk_samples:
            raise ValueError(f"{self.samples} samples are not whole chunks of {self.chunk_samples}")
        return self.samples // self.chunk_samples * self.chunk_frames

    def since(self, start: int) -> Probe:
        """Returns the tokens of the encoder frames from `start` on, and their frames from there."""
        tokens, frames = self.stream.tokens, self.stream.decoded.token_frames
        first = bisect_left(frames, start)
        return tokens[first:], [frame - start for frame in frames[first:]]

    def feed(self, packet: np.ndarray) -> None:
        """Feeds a packet, and notes the cost of a chunk that it completes."""
        stream, state, tokens, collected = self.stream, self.stream.encoder_state, len(self.stream.tokens), self._collected
        started = time.process_time()
        stream.feed(packet)
        self._spent += time.process_time() - started
        self.samples += len(packet)
        if stream.encoder_state is not state:
            seconds = self.samples / self.recognizer.sample_rate_hz
            self._collected = gc.get_stats()[-1]["collections"]
            collection = ", a garbage collection" if self._collected > collected else ""
            self.costs.append((1000 * self._spent, f"at {seconds:.1f} s, {len(stream.tokens) - tokens} tokens{collection}"))
            self._spent = 0.0


def one_stream(recognizer: Recognizer, seed: int, hours: int, hour_s: float = HOUR_S) -> Iterator[Hour]:
    """Yields the figures of each hour of one stream."""
    live, scenes = Live(recognizer), Scenes(recognizer.sample_rate_hz, seed)
    chunks_of_probe = -(-len(scenes.probe) // live.chunk_samples)
    probe = np.pad(scenes.probe, (0, chunks_of_probe * live.chunk_samples - len(scenes.probe)))
    chunks = round(hour_s * scenes.rate_hz / live.chunk_samples) - chunks_of_probe
    for _ in range(hours):
        yield live.run_hour(scenes.pieces(chunks * live.chunk_samples), probe)
