"""Where the time of a live stream goes, and whether it stays the same: front end, encoder, decoder, the loop around them.

    python bench/loop.py VARIANT_FOLDER --corpus reference/audio/eval.jsonl [--lookahead 6] [--threads 2] [--minutes 60]

Feeds the corpus over and over as one stream in packets of 100 ms, as `nemoport transcribe -` does, and clocks the calls
into the runtime. Printed for each sixth of the time: milliseconds a chunk of each part, and the resident memory at its
end. "Loop" is all that is none of the others: cutting chunks, carrying caches, choosing tokens. Nothing is asserted:
timing is no test.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np

from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.variant import instruction_set

WARM_UP_SECONDS, PARTS, PACKET_MS = 10.0, 6, 100


class Clocked:
    """A callable, or the `run` of a runtime's graph, that adds up its time."""

    def __init__(self, wrapped):
        self._wrapped, self.seconds, self.calls = wrapped, 0.0, 0

    def __getattr__(self, name):
        return getattr(self._wrapped, name)

    def run(self, *args):
        return self._clock(self._wrapped.run, *args)

    def __call__(self, *args):
        return self._clock(self._wrapped, *args)

    def _clock(self, function, *args):
        started = time.perf_counter()
        result = function(*args)
        self.seconds += time.perf_counter() - started
        self.calls += 1
        return result


def resident_bytes() -> int:
    """Of this process now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--lookahead", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--language", help="of a model with a prompt")
    options = parser.parse_args()

    recognizer = Recognizer.open(options.folder, options.lookahead, threads=options.threads, language=options.language)
    session, stream, rate_hz = recognizer.session, recognizer.stream(), recognizer.sample_rate_hz
    clocks = {"front end": Clocked(stream._mel.feed), "encoder": Clocked(session._encoder), "decoder": Clocked(session._decoder)}
    stream._mel.feed, session._encoder, session._decoder = clocks.values()
    utterances = itertools.cycle(read_corpus(options.corpus, rate_hz).utterances)
    speech = itertools.chain.from_iterable(packets(u.samples(), PACKET_MS * rate_hz // 1000) for u in utterances)

    def run(seconds: float) -> tuple[dict[str, float], int, int]:
        """Milliseconds of each part, chunks and tokens."""
        before = {name: clock.seconds for name, clock in clocks.items()}
        chunks, tokens, total = clocks["encoder"].calls, len(stream.tokens), 0.0
        for packet in itertools.islice(speech, int(1000 * seconds / PACKET_MS)):
            started = time.perf_counter()
            stream.feed(packet)
            total += time.perf_counter() - started
        spent = {name: clock.seconds - before[name] for name, clock in clocks.items()}
        spent |= {"loop": total - sum(spent.values()), "all": total}
        chunks = clocks["encoder"].calls - chunks
        return {name: 1000 * s / chunks for name, s in spent.items()}, chunks, len(stream.tokens) - tokens

    print(f"{options.folder.name}: {instruction_set()}, {options.threads} threads, lookahead {options.lookahead}\n")
    print("| minutes | front end | encoder | decoder | loop | all | not the encoder | tokens a chunk | resident MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    run(WARM_UP_SECONDS)
    for part in range(1, PARTS + 1):
        spent, chunks, tokens = run(60 * options.minutes / PARTS)
        row = [f"{part * options.minutes / PARTS:.1f}", *(f"{ms:.2f}" for ms in spent.values())]
        row += [f"{100 * (1 - spent['encoder'] / spent['all']):.1f} %", f"{tokens / chunks:.2f}"]
        print(f"| {' | '.join(row)} | {resident_bytes() / 1e6:.0f} |", flush=True)


def packets(samples: np.ndarray, size: int):
    """samples: f32 [n] -> f32 [size] each; what is left at the end is dropped."""
    return (samples[at : at + size] for at in range(0, len(samples) - size + 1, size))


if __name__ == "__main__":
    main()
