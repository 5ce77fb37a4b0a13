"""Times Core AI assets on a Mac: `USE_OS_COREAI=1 python bench/macos/coreai_time.py build/streaming-en/coreai-fp16`.

NOT RUN by those who wrote it: they had no Mac. On Linux `--unit cpu` was run, in the package's own runtime, to see that the
script itself works. Needs `pip install 'nemoport[coreai]'` or coreai-core alone, and macOS 27 with USE_OS_COREAI=1 for the
system's own Core AI; see coreai/runtime/_specialization_options.py of the package.

Prints for each graph its milliseconds a call (median, least, of `--runs` after `--warm`), and how long it took to load; and for
a chunk, as the published Core AI conversion of Nemotron 3.5 counts it: stream_pre, both halves, one predict and one joint a
frame."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a variant's folder, with metadata.json and the .aimodel folders")
    parser.add_argument("--unit", choices=("gpu", "neural_engine", "cpu"), default="gpu")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--warm", type=int, default=10)
    options = parser.parse_args()
    metadata = json.loads((options.folder / "metadata.json").read_text())
    specialization = chosen(options.unit)
    medians = {}
    for name, graph in metadata["graphs"].items():
        loaded_s, seconds = await timed(options.folder / graph["file"], graph["inputs"], specialization, options)
        medians[name] = 1000 * statistics.median(seconds)
        print(f"{name:22} {medians[name]:8.2f} ms, least {1000 * min(seconds):8.2f}, loaded in {loaded_s:.1f} s", flush=True)
    frames = metadata["frames_per_chunk"]
    chunk = sum(ms for name, ms in medians.items() if name == "stream_pre" or name.startswith("stream_conformer"))
    chunk += medians["predict"] + frames * medians["joint"]
    print(f"a chunk of {metadata['chunk_ms']:g} ms: {chunk:.1f} ms, {metadata['chunk_ms'] / chunk:.1f} times real time")


def chosen(unit: str):
    """SpecializationOptions, or None for the package's own runtime, which is the CPU's."""
    if sys.platform != "darwin":
        if unit != "cpu":
            sys.exit("Only macOS has a GPU or a Neural Engine for Core AI; here --unit cpu is what there is.")
        return None
    from coreai.runtime import ComputeUnitKind, SpecializationOptions

    if not SpecializationOptions.is_supported():
        sys.exit("Set USE_OS_COREAI=1: the package's own runtime has no GPU.")
    return SpecializationOptions.from_preferred_compute_unit_kind(getattr(ComputeUnitKind, unit)())


async def timed(path: Path, inputs: list[dict], specialization, options) -> tuple[float, list[float]]:
    """(seconds to load, seconds of each call)."""
    from coreai.authoring.asset import AIModelAsset
    from coreai.runtime import NDArray

    random = np.random.default_rng(0)
    feeds = {}
    for one in inputs:
        values = np.ones(one["shape"]) if one["dtype"].startswith("int") else random.normal(size=one["shape"])
        feeds[one["name"]] = NDArray(values.astype(one["dtype"]))
    started = time.perf_counter()
    async with AIModelAsset.load(path.resolve()).executable(specialization) as model:
        function = model.load_function("main")
        loaded_s, seconds = time.perf_counter() - started, []
        for turn in range(options.warm + options.runs):
            began = time.perf_counter()
            outputs = await function(feeds)
            next(iter(outputs.values())).numpy()  # waits for the result
            if turn >= options.warm:
                seconds.append(time.perf_counter() - began)
    return loaded_s, seconds


if __name__ == "__main__":
    asyncio.run(main())
