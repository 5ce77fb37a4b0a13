"""What every worker of ../whole.py does, in whatever environment it runs: it takes its turns, and measures them.

A worker opens a recogniser and calls `serve`, which reads a JSON object a line from stdin and answers with one:
{"lookahead": r, "streams": n, "chunks": k} feeds k chunks of audio to each of n streams, which go on from where they were, or
are new ones where lookahead or number are others than before: {"ms", "cpu_ms": of each chunk, "tokens", "text": of the first
stream so far, "peak_bytes"}. With "warm" nothing is measured, and no chunk waits for the threads of the one before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE_HZ, FRAME_SAMPLES = 16000, 1280  # of an encoder frame
# A live stream pauses behind each chunk, and a runtime's threads go on spinning into it: that is processor time of the chunk.
PAUSE_SECONDS = 0.1


class Streams(NamedTuple):
    """step: takes a chunk of samples, f32 [n], of each stream; found: number of tokens, where it is known, and text, of the first
    stream."""

    step: Callable[[list[np.ndarray]], None]
    found: Callable[[], tuple[int | None, str]]


class Audio:
    """Samples without an end: a recording over and over, from another place on for each stream."""

    def __init__(self, samples: np.ndarray, streams: int):
        self._samples = samples
        self._at = [len(samples) * i // streams for i in range(streams)]

    def next(self, size: int) -> list[np.ndarray]:
        pieces = [np.take(self._samples, np.arange(at, at + size), mode="wrap") for at in self._at]
        self._at = [(at + size) % len(self._samples) for at in self._at]
        return pieces


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def serve(begin: Callable[[int, int], Streams], audio: str, whole: bool = False) -> None:
    """begin(lookahead, streams) opens streams; audio: path of .npy, f32 at 16 kHz. whole: the chunks of an order are a recording,
    which is transcribed at once, and each is stated its share."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    samples, opened = np.load(audio), None
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        lookahead, streams, chunks = order["lookahead"], order["streams"], order["chunks"]
        if opened != (lookahead, streams):
            opened = lookahead, streams
            (step, found), heard = begin(*opened), Audio(samples, streams)
        wall, work = [], []
        for _ in range(1 if whole else chunks):
            pieces = heard.next((lookahead + 1) * FRAME_SAMPLES * (chunks if whole else 1))
            began, used = time.perf_counter(), time.process_time()
            step(pieces)
            wall.append(1000 * (time.perf_counter() - began))
            if not order.get("warm"):
                time.sleep(PAUSE_SECONDS)
            work.append(1000 * (time.process_time() - used))
        if whole:
            wall, work = [[total / chunks for total in times] * chunks for times in (wall, work)]
        tokens, text = found()
        answer = {"ms": wall, "cpu_ms": work, "tokens": tokens, "text": text, "peak_bytes": peak_bytes()}
        print(json.dumps(answer), file=answers, flush=True)
