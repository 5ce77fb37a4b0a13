"""Half an hour of speech as one stream, minute by minute, beside NeMo's own streaming of the same.

    python bench/longform.py --build build/accuracy [--minutes 30] [--checkpoints reference hard-0-32] [--threads N]

The gate longform judges ten minutes. Run bench/accuracy.py first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import accuracy

from nemoport.export.checkpoint import read_checkpoint
from nemoport.speech.corpus import read_corpus
from nemoport.validate.context import Context
from nemoport.validate.gates.longform import transcribe_segments
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle

VARIANTS = ("fp32", "int8-dynamic", "int8-smoothquant", "int8-weight", "kv-int8-dynamic")


def rows(checkpoint_path: Path, build: Path, minutes: float, threads: int) -> Iterator[tuple[str, ...]]:
    checkpoint = read_checkpoint(str(checkpoint_path))
    corpus = read_corpus(accuracy.REFERENCE / "audio" / "eval.jsonl", checkpoint.spec.frontend.sample_rate_hz)
    oracle = record_oracle(checkpoint, corpus, build)
    yield ("variant", "WER", "above NeMo", "worst minute", "stalls", "tokens in silence", "points above NeMo, minute by minute")
    for variant in VARIANTS:
        limits = limits_of(variant)
        limits = limits.override("longform", minutes=minutes)
        context = Context(build / variant, limits, checkpoint, corpus, oracle, threads=threads)
        scores = transcribe_segments(context, context.lookaheads[0])
        whole, worst = scores.whole, scores.worst
        where = f"{worst.above:+.1f} (minute {worst.number}, {worst.words} words)"
        by_minute = " ".join(f"{m.above:+.1f}" if abs(m.above) > 1e-9 else "0" for m in scores.minutes)
        figures = (f"{whole.wer:.2f}", f"{whole.above:+.2f}", where, str(len(scores.stalls)), str(scores.in_silence), by_minute)
        yield (variant, *figures)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints WER by minute over a long stream.")
    parser.add_argument("--build", type=Path, required=True, help="the folder of bench/accuracy.py")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--checkpoints", nargs="+", default=["reference", "hard-0-32"])
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    for case in accuracy.cases(args.build, args.checkpoints):
        print(f"\n{case.title}:\n")
        for i, row in enumerate(rows(case.checkpoint, case.build, args.minutes, args.threads)):
            print("| " + " | ".join(row) + " |", flush=True)
            if i == 0:
                print("|" + "---|" * len(row), flush=True)


if __name__ == "__main__":
    main()
