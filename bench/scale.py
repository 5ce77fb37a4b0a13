"""What evaluation costs: an hour of audio, the start of a run, an utterance of the lists; and a plan for many hours from these.

    python bench/scale.py --build build/streaming-en [--variants kv-int8-weight fp32] [--engines local ray] [--times 4]
        [--synthetic 1000000] [--scorers wer] [--hours 10000] [--machines 100] [--cores 16] [--utterance-seconds 10]
        [--cost NAME=PROCESSOR_SECONDS ...]

The audio is the committed evaluation speech, `--times` over. Each variant runs in one worker of one thread, then in two;
processor seconds are those of the workers, so that other work on the machine is in the wall-clock times only. `--synthetic`
records, without audio, show what lists, results and scores take. --cost adds a row to the plan, of a model that was measured
elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.evaluation.evaluate import Workers, evaluate
from nemoport.evaluation.item import Item
from nemoport.evaluation.results import HYPOTHESES, JOURNAL, line_of, read_records, write_ordered
from nemoport.evaluation.scorers import scorer
from nemoport.evaluation.scoring import score
from nemoport.evaluation.sources import open_data
from nemoport.variant import instruction_set

EVAL = Path(__file__).parent.parent / "reference" / "audio" / "eval.jsonl"
LISTS = 2  # of a data set in the run of a shard, after that for its digest: its length, the items themselves

COLUMNS = (
    "variant", "engine", "workers", "utterances", "hours", "wall s", "to the first record, s", "processor s an hour",
    "of the first process, s", "real-time factor", "p50", "p95",
)  # fmt: skip


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        print(f"\n{instruction_set()}, workers of one thread\n")
        costs = dict(_stated(one) for one in options.cost)
        start_s = 0.0
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for variant in options.variants:
            for engine, count in itertools.product(options.engines, (1, 2)):
                manifest, output = repeated(Path(scratch), options.times), Path(scratch) / "results"
                figures = run(options.build / variant, manifest, output, Workers(engine, count))
                print(f"| {variant} | {engine} | {count} | {' | '.join(figures['cells'])} |", flush=True)
                if count == 1 and engine == options.engines[0]:
                    costs[variant], start_s = figures["cost"], max(start_s, figures["start"])
        lists = synthetic(Path(scratch), options.synthetic, options.scorers)
    plan(options, costs, start_s, lists)


def repeated(scratch: Path, times: int) -> Path:
    """Writes a manifest of the evaluation speech, several times over."""
    rows = [json.loads(line) for line in EVAL.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(EVAL.parent / row["audio_filepath"])
    path = scratch / "speech.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * times))
    return path


def run(variant: Path, manifest: Path, output: Path, workers: Workers) -> dict[str, Any]:
    """Evaluates, and returns the cells of a row, processor seconds an hour, and seconds until the first record."""
    shutil.rmtree(output, ignore_errors=True)
    first: list[float] = []
    started, processor = time.perf_counter(), time.process_time()
    summary = evaluate(
        str(variant),
        lambda _: open_data(manifest),
        output,
        workers=workers,
        progress=lambda report: first.append(time.perf_counter() - started),
    )
    if summary.failures:
        raise SystemExit(f"{summary.failures} utterances failed: {summary.failed}")
    wall, own, found = time.perf_counter() - started, time.process_time() - processor, summary.described()
    hours, cost, factor = summary.audio_s / 3600, found["processor_seconds_per_hour"], found["real_time_factor"]
    figures = (hours, wall, first[0], cost, own, factor["all"], factor["p50"], factor["p95"])
    cells = [str(summary.utterances), *(f"{value:.3g}" for value in figures)]
    return {"cells": cells, "cost": cost, "start": first[0]}


def synthetic(scratch: Path, count: int, scorers: Sequence[str]) -> dict[str, float]:
    """Times lists, results and scores of `count` records without audio. Returns microseconds of processor
    time for each record, by what is done."""
    print(
        f"\n{count:,} synthetic records:\n\n| step | wall s | processor s | us a record | peak MB so far |\n|---|---|---|---|---|"
    )
    folder, texts = scratch / "synthetic", [json.loads(line)["text"] for line in EVAL.read_text().splitlines()]
    folder.mkdir()
    random, manifest = np.random.default_rng(0), folder / "manifest.jsonl"
    with open(manifest, "w") as stream:
        for i in range(count):
            stream.write(json.dumps({"audio_filepath": f"/a/{i:09d}.flac", "text": texts[i % len(texts)], "lang": "en"}) + "\n")
    found = {"digest": _timed("list a manifest for its digest", count, lambda: open_data(manifest))}
    data = open_data(manifest)
    found["list"] = _timed("list it again", count, lambda: sum(1 for _ in data.items()))
    with open(folder / JOURNAL, "wb") as stream:
        for i in random.permutation(count).tolist():
            words = texts[i % len(texts)].split()
            text = " ".join(word for word in words if random.random() > 0.1)
            known = Item(f"/a/{i:09d}.flac", "", text=" ".join(words), language="en", fields={"set": str(i % 5)}).known()
            times = {"work_seconds": 0.1, "processor_seconds": 0.1, "worker": f"host/{i % 64}", "instruction_set": "x"}
            stream.write(line_of(known | times | {"text": text, "languages": [], "audio_seconds": 10.0}))
    found["order"] = _timed("order and write the results", count, lambda: write_ordered(folder))
    found["read"] = _timed("read the results", count, lambda: sum(1 for _ in read_records(folder / HYPOTHESES)))
    run_json = {"artifact": {}, "options": {}, "versions": {}, "data": {}, "shard": "1/1"}
    (folder / "run.json").write_text(json.dumps(run_json))
    for name in scorers:
        scores = partial(score, folder, scorer(name), ["language", "set"])
        found[name] = _timed(f"score by language and set: {name}", count, scores)
    shutil.rmtree(folder)
    return found


def plan(options: argparse.Namespace, costs: dict[str, float], start_s: float, lists: dict[str, float]) -> None:
    """Prints how long it takes, for each cost, and of what the time consists."""
    utterances = options.hours * 3600 / options.utterance_seconds
    share, cores = utterances / options.machines, options.machines * options.cores
    listing_s = utterances * (lists["digest"] + LISTS * lists["list"]) / 1e6
    merge_s = utterances * (lists["order"] + lists["read"]) / 1e6
    uneven = 3 / math.sqrt(share)  # three deviations of the largest part of hashed ids, of utterances of one length
    print(f"\n{options.hours:,} hours, {utterances:,.0f} utterances, {options.machines} machines of {options.cores} cores:\n")
    print("| model | processor hours | transcribing | uneven shards | start | lists, on each machine | merging, on one | "
          "scoring, on one | all |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, cost in costs.items():
        work_s = options.hours * cost / cores
        score_s = utterances * lists[options.scorers[0]] / 1e6
        parts = [work_s, work_s * uneven, start_s, listing_s, merge_s, score_s]
        print(f"| {name} | {options.hours * cost / 3600:,.0f} | {' | '.join(_minutes(part) for part in [*parts, sum(parts)])} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=["kv-int8-weight", "fp32"])
    parser.add_argument("--engines", nargs="+", default=["local"])
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--synthetic", type=int, default=1_000_000)
    parser.add_argument("--scorers", nargs="+", default=["wer"])
    parser.add_argument("--hours", type=int, default=10_000)
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--utterance-seconds", type=float, default=10.0)
    parser.add_argument("--cost", action="append", default=[])
    return parser.parse_args()


def _stated(text: str) -> tuple[str, float]:
    name, _, cost = text.rpartition("=")
    return name, float(cost)


def _timed(what: str, count: int, work: Callable[[], Any]) -> float:
    started, processor = time.perf_counter(), time.process_time()
    work()
    wall, seconds = time.perf_counter() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {what} | {wall:.1f} | {seconds:.1f} | {1e6 * seconds / count:.1f} | {peak:.0f} |", flush=True)
    return 1e6 * seconds / count


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
