"""What the checks of foreign files cost, beside the stage that each stands before.

    python bench/gate_cost.py --checkpoint reference/checkpoints/streaming-en.nemo --build build/streaming-en [--rounds 5]

Each row: median seconds of the check, seconds of its stage in the same run, and their ratio. `verify` computes the hashes of a
package as it did before, so they are not among the checks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nemoport.artifact import Artifact, Manifest
from nemoport.config import read_config
from nemoport.export.archive import CONFIG, opened
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.external_data import check_external_data
from nemoport.runtimes import open_session
from nemoport.tokens import read_tokens


def seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkpoint = read_checkpoint(str(options.checkpoint))
    artifact = Artifact.open(options.build / "fp32")

    def read_archive() -> None:
        with opened(options.checkpoint) as archive:
            assert CONFIG in archive.entries

    with tempfile.TemporaryDirectory() as folder:
        stages = {
            "export": seconds(lambda: export_checkpoint(checkpoint, Path(folder) / "build"), 1),
            "opening a session": seconds(lambda: open_session(artifact, threads=1), options.rounds),
        }
    whole = seconds(lambda: read_checkpoint(str(options.checkpoint)), options.rounds)
    rows = [
        ("the archive, read to its end", "export", seconds(read_archive, options.rounds)),
        ("archive, sha256, config, bounds of every value", "export", whole),
        ("config.json", "opening a session", seconds(lambda: read_config(options.build), options.rounds)),
        ("manifest.json", "opening a session", seconds(lambda: Manifest.read(artifact.folder), options.rounds)),
        ("tokens.txt", "opening a session", seconds(lambda: read_tokens(artifact.shared / "tokens.txt"), options.rounds)),
        (
            "weights in other files, encoder",
            "opening a session",
            seconds(lambda: check_external_data(artifact.encoder), options.rounds),
        ),
    ]
    print("| check | seconds | stage | seconds | of it |\n|---|---|---|---|---|")
    for check, stage, taken in rows:
        print(f"| {check} | {taken:.4f} | {stage} | {stages[stage]:.2f} | {100 * taken / stages[stage]:.2f} % |")


if __name__ == "__main__":
    main()
