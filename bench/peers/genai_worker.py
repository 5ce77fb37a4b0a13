"""Runs in the peer's environment, as ../worker.py does in ours: genai_worker.py FOLDER THREADS.

FOLDER is one that genai.py has laid out. A chunk is features, encoder and greedy decoding of one stream of noise.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as og


def open_stream(folder: str, threads: str):
    """A function that runs one chunk."""
    config = og.Config(folder)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": int(threads)}}}}))
    model = og.Model(config)
    features, generator = og.StreamingProcessor(model), og.Generator(model, og.GeneratorParams(model))
    samples = json.loads((Path(folder) / "genai_config.json").read_text())["model"]["chunk_samples"]
    noise = np.random.default_rng(0).normal(0.0, 0.05, samples).astype(np.float32)

    def step():
        generator.set_inputs(features.process(noise))
        while not generator.is_done():
            generator.generate_next_token()

    return step


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def answer(**values) -> None:
    print(json.dumps(values), flush=True)


step = open_stream(*sys.argv[1:])
answer(peak_bytes=peak_bytes())
for line in sys.stdin:
    milliseconds = []
    for _ in range(json.loads(line)["chunks"]):
        started = time.perf_counter()
        step()
        milliseconds.append(1000 * (time.perf_counter() - started))
    answer(ms=milliseconds, peak_bytes=peak_bytes())
