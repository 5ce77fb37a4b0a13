"""Ways to 4 bits on the same graph and audio: onnxruntime's own algorithms beside our error feedback.

    python bench/peers/int4.py --build BUILD [--work build/peers] [--blocks 32 128]

BUILD is a build folder with fp32/ and config.json. Each algorithm of onnxruntime's matmul_nbits_quantizer gets the fp32
encoder and the smoothed one, in a process of its own with the onnx-ir package that it needs, which is put under WORK.
GPTQ there sees warm chunks of one lookahead, as it cannot take several lengths. Printed for each: the encoder's bytes,
seconds to quantize, dB of the encoder's frames against fp32's, tokens that differ from fp32's, and the time of a chunk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from smoothquant import AUDIO, LOOKAHEAD, write_feeds

from nemoport.artifact import Artifact
from nemoport.graph_file import save_model
from nemoport.quantize import build_variant, int4_weight
from nemoport.quantize.blocks import store
from nemoport.quantize.graph import layer_matmuls, load_typed, metadata
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import Corpus, read_corpus
from nemoport.stream import Stream, advance

HERE = Path(__file__).parent
PACKAGE = "onnx-ir==1.1.0"
THEIRS = ("nearest, symmetric", "nearest, asymmetric", "k-quant", "HQQ", "GPTQ", "GPTQ, mse")
OURS = {"nemoport, nearest": "nearest", "nemoport, error feedback": "feedback"}
EVERY = 6  # of the evaluation utterances


def packages(folder: Path) -> Path:
    """A folder with what the quantizer imports besides what we have."""
    if not (folder / "onnx_ir").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, PACKAGE]
        subprocess.run(command, check=True)
    return folder


def theirs(graph: Path, algorithm: str, block: int, work: Path, folder: Path) -> float:
    """Writes folder/encoder.onnx; returns the seconds that quantizing took. Raises SystemExit with what it printed."""
    cost = work / "cost.json"
    inputs = [graph, folder / "encoder.onnx", algorithm, str(block), work / "nodes.json", work / "feeds.npz", cost]
    path = [str(packages(work / "packages")), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, HERE / "nbits.py", *inputs], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{algorithm}: {done.stderr[-2000:]}")
    raw = json.loads(cost.read_text())
    wanted = len(json.loads((work / "nodes.json").read_text()))
    if raw["products"] != wanted:
        raise SystemExit(f"{algorithm} quantized {raw['products']} MatMuls of {wanted}")
    return raw["seconds"]


def ours(parent: Artifact, rounding: str, block: int, calibration: Corpus, folder: Path) -> float:
    model = load_typed(parent.encoder)
    parameters = int4_weight.Parameters(rounding=rounding, block=block)
    grams = int4_weight.grams_of(parent, parameters, calibration, lambda line: None)
    started = time.perf_counter()
    blocks = int4_weight.rounded(model, grams, parameters, lambda line: None)
    seconds = time.perf_counter() - started
    store(model, {name: (made, 4) for name, made in blocks.items()})
    del model.graph.value_info[:]
    save_model(model, folder / "encoder.onnx", metadata(model))
    return seconds


def transcribed(artifact: Artifact, encoder: Path, corpus: Corpus) -> tuple[np.ndarray, list[list[int]], float]:
    """Encoder frames f32 [frames, d_model], tokens by utterance, median milliseconds of a chunk (decoding included)."""
    session, frames, tokens, times = OnnxSession(artifact.spec, encoder, artifact.decoder, threads=1), [], [], []
    for utterance in corpus.utterances:
        stream = Stream(session, artifact.filterbank(), LOOKAHEAD)
        stream.push(utterance.samples())
        stream.close()
        while stream.chunks:
            started = time.perf_counter()
            frames += advance(session, [stream])
            times.append(1000 * (time.perf_counter() - started))
        tokens.append(list(stream.tokens))
    return np.concatenate(frames), tokens, float(np.median(times))


def rows(build: Path, work: Path, blocks: list[int]) -> Iterator[str]:
    from rapidfuzz.distance import Levenshtein

    fp32 = Artifact.open(build / "fp32")
    rate_hz = fp32.spec.frontend.sample_rate_hz
    calibration, evaluation = (read_corpus(AUDIO / f"{name}.jsonl", rate_hz) for name in ("calibration", "eval"))
    evaluation = replace(evaluation, utterances=evaluation.utterances[::EVERY])
    parents = {"no": fp32, "yes": build_variant(build, "smoothed", AUDIO / "calibration.jsonl", progress=lambda line: None)}
    frames, tokens, _ = transcribed(fp32, fp32.encoder, evaluation)
    (work / "nodes.json").write_text(json.dumps([n.name for n in layer_matmuls(load_typed(fp32.encoder))]))
    total = sum(map(len, tokens))
    yield "| block | smoothed | algorithm | MB | seconds | dB | tokens other | ms a chunk |"
    yield "|---|---|---|---|---|---|---|---|"
    for smoothed, parent in parents.items():
        write_feeds(parent, calibration, work / "feeds.npz")
        for block in blocks:
            for name in (*THEIRS, *OURS):
                folder = work / "made"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                if name in OURS:
                    seconds = ours(parent, OURS[name], block, calibration, folder)
                else:
                    seconds = theirs(parent.encoder, name, block, work, folder)
                size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
                made, others, ms = transcribed(fp32, folder / "encoder.onnx", evaluation)
                noise = np.square(made - frames).sum(dtype=np.float64) / np.square(frames).sum(dtype=np.float64)
                other = sum(map(Levenshtein.distance, tokens, others)) / total
                yield (f"| {block} | {smoothed} | {name} | {size:.2f} | {seconds:.1f} | {-10 * np.log10(noise):.1f} "
                       f"| {100 * other:.1f} % | {ms:.1f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares ways to 4 bits.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/peers"))
    parser.add_argument("--blocks", type=int, nargs="+", default=[32, 128])
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    build = args.work / "int4"  # the same checkpoint's fp32, so that nothing is left in BUILD
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    for name in ("config.json", "shared", "fp32"):
        (shutil.copytree if (args.build / name).is_dir() else shutil.copyfile)(args.build / name, build / name)
    for row in rows(build, args.work, args.blocks):
        print(row, flush=True)


if __name__ == "__main__":
    main()
