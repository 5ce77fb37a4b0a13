"""Speed of a build's variants: one run, rows interleaved chunk by chunk, so that a noisy machine hits all alike.

    python bench/variants.py --build build/streaming-en --corpus reference/audio/eval.jsonl [--lookahead 6] [--threads 2]

A round streams one warm chunk of real audio through each variant in turn (encoder, and greedy decoding of its frames).
Printed per variant: median and quartiles of milliseconds a chunk, times real time, and the ratio to fp32 in the same
round (median of the ratios). Nothing is asserted: timing is no test.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.corpus import read_corpus
from nemoport.decode import GreedyState, greedy_rnnt
from nemoport.frontend import LogMel
from nemoport.stream import Chunker
from nemoport.validate.sessions.onnxruntime import OnnxSession
from nemoport.variant import instruction_set

WARM_UP_CHUNKS = 12


class Row:
    """One variant, streaming the same chunks as the others."""

    def __init__(self, name: str, artifact: Artifact, threads: int):
        self.name, self.session = name, OnnxSession.open(artifact, threads=threads)
        self.state = self.session.initial_state(1)
        self.greedy = GreedyState.initial(artifact.spec.decoding)
        self.encoder_ms: list[float] = []
        self.decoder_ms: list[float] = []

    def run(self, chunk) -> None:
        started = time.perf_counter()
        lengths = np.array([chunk.length])
        frames, frame_lengths, self.state = self.session.encode(chunk.mel[None], lengths, self.state)
        encoded = time.perf_counter()
        greedy_rnnt(self.session, frames, frame_lengths, [self.greedy])
        self.encoder_ms.append(1000 * (encoded - started))
        self.decoder_ms.append(1000 * (time.perf_counter() - encoded))


def chunks_of(build: Path, corpus: Path, artifact: Artifact, lookahead: int, count: int):
    spec = artifact.spec
    mel = LogMel(spec.frontend, artifact.filterbank())
    chunker = Chunker(spec.streaming, spec.frontend.n_mels, lookahead)
    utterances = itertools.cycle(read_corpus(corpus, spec.frontend.sample_rate_hz).utterances)
    endless = (chunk for u in utterances for chunk in chunker.feed(mel.whole(u.samples())))
    return list(itertools.islice(endless, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--lookahead", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()

    folders = sorted(p.parent for p in options.build.glob("*/manifest.json"))
    folders.sort(key=lambda f: f.name != "fp32")
    rows = [Row(f.name, Artifact.open(f), options.threads) for f in folders]
    artifact = Artifact.open(folders[0])
    for chunk in chunks_of(options.build, options.corpus, artifact, options.lookahead, options.rounds + WARM_UP_CHUNKS):
        for row in rows:
            row.run(chunk)

    chunk_ms = artifact.spec.streaming.chunk_ms(options.lookahead, artifact.spec.frontend)
    print(f"{instruction_set()}, {options.threads} threads, lookahead {options.lookahead} ({chunk_ms:.0f} ms chunks), "
          f"{options.rounds} rounds")  # fmt: skip
    print("| variant | encoder ms (quartiles) | decoder ms | times real time | encoder speed, fp32 = 1 |")
    print("|---|---|---|---|---|")
    base = rows[0].encoder_ms[WARM_UP_CHUNKS:]
    for row in rows:
        encoder, decoder = row.encoder_ms[WARM_UP_CHUNKS:], row.decoder_ms[WARM_UP_CHUNKS:]
        low, middle, high = statistics.quantiles(encoder, n=4)
        ratio = statistics.median(b / e for b, e in zip(base, encoder, strict=True))
        speed = chunk_ms / (middle + statistics.median(decoder))
        print(f"| {row.name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {statistics.median(decoder):.2f} "
              f"| {speed:.1f} | {ratio:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
