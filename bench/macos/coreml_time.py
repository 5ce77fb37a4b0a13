"""Runs Core ML packages on a Mac: against the torch programs beside them, and against the clock.

    python bench/macos/coreml_time.py build/streaming-en/coreml-int8

NOT RUN by those who wrote it: Core ML predicts on macOS only, and they had no Mac. Needs macOS 15 and
`pip install 'nemoport[coreml]'`.

For each graph: the largest difference of an output from the torch program's on the same random inputs, as a share of that
output's largest value (what fp16 and compressed weights cost, and that Core ML reads the package right); milliseconds a call.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a variant's folder, with metadata.json, .mlpackage and .pt2")
    parser.add_argument("--unit", choices=("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"), default="CPU_AND_NE")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--warm", type=int, default=10)
    options = parser.parse_args()
    if sys.platform != "darwin":
        sys.exit("Core ML predicts on macOS only.")
    metadata = json.loads((options.folder / "metadata.json").read_text())
    medians = {}
    for name, graph in metadata["graphs"].items():
        seconds, worst = one(options.folder / graph["file"], graph, options)
        medians[name] = 1000 * statistics.median(seconds)
        print(f"{graph['file']:28} {medians[name]:8.2f} ms; from torch: {worst:.1e} of the largest value", flush=True)
    if "chunk_ms" not in metadata:  # of an offline model, whose longest window comes last
        seconds, encoder = metadata["windows_s"][-1], f"encoder_{metadata['windows_s'][-1]}s"
        print(f"the encoder on {seconds} s: {1000 * seconds / medians[encoder]:.1f} times real time")
        return
    chunk = sum(ms for name, ms in medians.items() if name == "stream_pre" or name.startswith("stream_conformer"))
    chunk += medians["predict"] + metadata["frames_per_chunk"] * medians["joint"]
    print(f"a chunk of {metadata['chunk_ms']:g} ms: {chunk:.1f} ms, {metadata['chunk_ms'] / chunk:.1f} times real time")


def one(path: Path, graph: dict, options) -> tuple[list[float], float]:
    """(seconds of each call, largest difference from the torch program)."""
    import coremltools as ct
    import torch

    random = np.random.default_rng(0)
    feeds = {}
    for entry in graph["inputs"]:
        values = np.ones(entry["shape"]) if entry["dtype"].startswith("int") else random.normal(size=entry["shape"])
        feeds[entry["name"]] = values.astype(entry["dtype"])
    model = ct.models.MLModel(str(path), compute_units=getattr(ct.ComputeUnit, options.unit))
    found, seconds = model.predict(feeds), []
    for turn in range(options.warm + options.runs):
        began = time.perf_counter()
        model.predict(feeds)
        if turn >= options.warm:
            seconds.append(time.perf_counter() - began)
    with torch.no_grad():
        program = torch.export.load(path.with_suffix(".pt2")).module()
        values = program(**{key: torch.from_numpy(array) for key, array in feeds.items()})
    values = values if isinstance(values, (tuple, list)) else (values,)
    worst = 0.0
    for entry, value in zip(graph["outputs"], values, strict=True):
        wanted = value.numpy()
        worst = max(worst, float(np.abs(found[entry["name"]] - wanted).max() / np.abs(wanted).max()))
    return seconds, worst


if __name__ == "__main__":
    main()
