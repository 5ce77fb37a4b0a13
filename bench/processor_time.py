"""Variants side by side on a machine that others use too: by processor time, rounds interleaved.

    python bench/processor_time.py BUILD VARIANT... --corpus reference/audio/eval.jsonl [--lookahead 6] [--rounds 3] [--threads 1]

Each run is a process of its own that opens the variant and transcribes a minute of the corpus as one live stream after
another; an offline model's does so twice, and the second time counts, when every window is open. Printed for each variant:
seconds of audio in a second of processor time, of the runs the least and the most, and peak memory. Neighbours still cost caches
and clock rate, so only rows of one call compare. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path

from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.validate.probe import peak_bytes
from nemoport.variant import instruction_set

PACKET_MS, AUDIO_SECONDS = 100, 60.0


def run(folder: Path, corpus: Path, lookahead: int | None, language: str | None, threads: int) -> dict:
    recognizer = Recognizer.open(folder, lookahead, threads=threads, language=language)
    rate_hz = recognizer.sample_rate_hz
    every = read_corpus(corpus, rate_hz).utterances
    starts = accumulate((u.seconds for u in every), initial=0.0)
    minute = [u for u, start in zip(every, starts, strict=False) if start < AUDIO_SECONDS]
    if recognizer.session.spec.streaming is None:
        for _ in recognizer.transcribe([u.samples() for u in minute]):
            pass
    heard, counted, work = 0.0, 0.0, 0.0
    for utterance in minute:
        samples, stream = utterance.samples(), recognizer.stream()
        started = time.process_time()
        for at in range(0, len(samples), rate_hz * PACKET_MS // 1000):
            stream.feed(samples[at : at + rate_hz * PACKET_MS // 1000])
        stream.finish()
        if heard:  # the first opens the graphs
            work += time.process_time() - started
            counted += utterance.seconds
        heard += utterance.seconds
    return {"speed": counted / work, "peak_bytes": peak_bytes(), "lookahead": recognizer.lookahead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--lookahead", type=int)
    parser.add_argument("--language", help="of a model that is told one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help="run the variant here and print JSON")
    options = parser.parse_args()
    if options.one:
        folder = options.build / options.variants[0]
        print(json.dumps(run(folder, options.corpus, options.lookahead, options.language, options.threads)))
        return
    found: dict[str, list[dict]] = {variant: [] for variant in options.variants}
    given = {name: getattr(options, name) for name in ("lookahead", "language", "threads")}
    settings = [f"--{name}={value}" for name, value in given.items() if value is not None]
    for _ in range(options.rounds):
        for variant, runs in found.items():
            command = [sys.executable, __file__, str(options.build), variant, "--corpus", str(options.corpus), "--one", *settings]
            runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))
    lookahead = next(iter(found.values()))[0]["lookahead"]
    print(f"{instruction_set()}, threads {options.threads}, lookahead {lookahead}, {options.rounds} rounds")
    for variant, runs in found.items():
        speeds = sorted(one["speed"] for one in runs)
        peak_mb = max(one["peak_bytes"] for one in runs) / 1e6
        print(f"{variant:18} {speeds[0]:6.1f} to {speeds[-1]:5.1f} times real time  {peak_mb:5.0f} MB")


if __name__ == "__main__":
    main()
