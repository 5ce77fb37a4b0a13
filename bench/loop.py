"""Where the time of a live stream goes: front end, encoder, decoder, and the loop around them.

    python bench/loop.py VARIANT_FOLDER --corpus reference/audio/eval.jsonl [--lookahead 6] [--threads 2] [--seconds 60]

Feeds recordings in packets of 100 ms to `Recognizer.stream()`, as `nemoport transcribe -` does, and clocks the calls into
the runtime. Printed: milliseconds a chunk and the share of each part. "Loop" is all that is none of the others: cutting
chunks, carrying caches, choosing tokens. Nothing is asserted: timing is no test.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nemoport.calibration.corpus import read_corpus
from nemoport.recognizer import Recognizer
from nemoport.variant import instruction_set

WARM_UP_CHUNKS = 12
PACKET_MS = 100


class Clocked:
    """A runtime's graph that adds up the time of its runs."""

    def __init__(self, graph):
        self._graph, self.seconds, self.calls = graph, 0.0, 0

    def __getattr__(self, name):
        return getattr(self._graph, name)

    def run(self, *args):
        started = time.perf_counter()
        result = self._graph.run(*args)
        self.seconds += time.perf_counter() - started
        self.calls += 1
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--lookahead", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()

    recognizer = Recognizer.open(options.folder, options.lookahead, threads=options.threads)
    session, rate_hz = recognizer.session, recognizer.sample_rate_hz
    session._encoder, session._decoder = encoder, decoder = Clocked(session._encoder), Clocked(session._decoder)
    stream, total, frontend, tokens = recognizer.stream(), 0.0, 0.0, 0
    feed = stream._mel.feed

    def clocked_feed(samples):
        nonlocal frontend
        started = time.perf_counter()
        mel = feed(samples)
        frontend += time.perf_counter() - started
        return mel

    stream._mel.feed = clocked_feed
    heard, size = 0.0, PACKET_MS * rate_hz // 1000
    for utterance in read_corpus(options.corpus, rate_hz).utterances:
        samples = utterance.samples()
        for at in range(0, len(samples) - size + 1, size):
            if encoder.calls == WARM_UP_CHUNKS:
                encoder.seconds = decoder.seconds = total = frontend = 0.0
                decoder.calls, tokens = 0, len(stream.tokens)
                encoder.calls += 1
            started = time.perf_counter()
            stream.feed(samples[at : at + size])
            total += time.perf_counter() - started
        heard += len(samples) / rate_hz
        if heard >= options.seconds:
            break
    chunks = encoder.calls - WARM_UP_CHUNKS - 1
    parts = {"front end": frontend, "encoder": encoder.seconds, "decoder": decoder.seconds}
    parts["loop"] = total - sum(parts.values())
    print(f"{options.folder.name}: {instruction_set()}, {options.threads} threads, lookahead {options.lookahead}")
    print(f"{chunks} chunks, {len(stream.tokens) - tokens} tokens, {decoder.calls} decoder calls\n")
    print("| part | ms a chunk | share |\n|---|---|---|")
    for name, seconds in {**parts, "all": total}.items():
        print(f"| {name} | {1000 * seconds / chunks:.2f} | {100 * seconds / total:.1f} % |")


if __name__ == "__main__":
    main()
