"""Batches for training by the number of their step, made by other processes ahead of it."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from . import data

CHAIN_SHARE, CHAIN_S = 0.1, 15.0  # of the batches; of an example in them
LIKE_LENGTHS = 3  # a batch is drawn from so many times its number of clips, of about its length
STOPPING = (signal.SIGTERM, signal.SIGINT)
AHEAD = 3  # batches that each process has been asked for


def lists_of(work: Path) -> list[Path]:
    """The list of each part's speech."""
    return sorted(work.glob("speech-*.jsonl"))


def read_clips(work: Path) -> list[data.Clip]:
    """Reads the speech of every part that is there, each clip as often as its weight; shortest first."""
    import soundfile

    rows = [json.loads(line) for part in lists_of(work) for line in part.read_text().splitlines()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(lambda row: soundfile.read(work / row["file"], dtype="int16")[0], rows))
    clips = []
    for row, samples in zip(rows, read, strict=True):
        clips += [data.Clip(samples, row["tokens"], row["recorded"])] * row["weight"]
    return sorted(clips, key=lambda clip: len(clip.samples))


@dataclass(frozen=True)
class Batches:
    """Batches by the number of their step. clips: in the order of their lengths; seconds: of audio in a batch, with padding."""

    clips: list[data.Clip]
    seconds: float
    seed: int

    def at(self, step: int) -> tuple[np.ndarray, list[int], list[list[int]], float]:
        """Draws samples i16 [B, n], how many each example has, its tokens, and a number in [0, 1) that chooses the lookahead."""
        rng, noise = random.Random(f"further {self.seed} {step}"), np.random.default_rng([self.seed, step])
        room = self.seconds * data.SAMPLE_RATE_HZ
        if rng.random() < CHAIN_SHARE:
            examples = []
            for _ in range(max(1, int(self.seconds / CHAIN_S))):
                links = rng.choices(self.clips, k=rng.randint(3, 5))
                examples.append(data.chained(links, rng, noise, rng.choice((0.3, 1.0, 4.0))))
        else:
            first = rng.randrange(len(self.clips))
            number = max(1, int(room / (len(self.clips[first].samples) + data.SAMPLE_RATE_HZ // 2)))
            near = self.clips[max(0, first - LIKE_LENGTHS * number // 2) : first + LIKE_LENGTHS * number // 2 + 1]
            chosen = rng.sample(near, min(number, len(near)))
            examples = [(data.augmented(clip, rng, noise), clip.tokens) for clip in chosen]
        lengths = [len(samples) for samples, _ in examples]
        audio = np.zeros((len(examples), max(lengths)), np.int16)
        for row, (samples, _) in zip(audio, examples, strict=True):
            row[: len(samples)] = np.rint(np.clip(samples, -1, 1) * 32767)
        return audio, lengths, [tokens for _, tokens in examples], rng.random()

    def ahead(self, first: int, processes: int) -> Iterator[tuple]:
        """Yields the batches from a step on, made by other processes while the one before is trained on (0: by this one)."""
        if not processes:
            yield from map(self.at, count(first))
        global _batches
        _batches = self  # what a forked process finds, without a copy of the audio
        with ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=_ignore_signals) as pool:
            waiting = deque(pool.submit(_batch, first + i) for i in range(AHEAD * processes))
            for step in count(first + len(waiting)):
                yield waiting.popleft().result()
                waiting.append(pool.submit(_batch, step))


_batches: Batches


def _batch(step: int) -> tuple:
    return _batches.at(step)


def _ignore_signals() -> None:
    """What stops a run is sent to the whole group: the training ends these processes itself."""
    for one in STOPPING:
        signal.signal(one, signal.SIG_IGN)
