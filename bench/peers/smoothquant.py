"""Our smoothing beside that of onnx-neural-compressor 1.0, on the same graph, audio and static quantizer.

    python bench/peers/smoothquant.py --build BUILD [--work build/peers]

BUILD is a build folder with fp32/ (best of a hardened checkpoint, see nemoport.reference.outliers). The peer runs in a
virtual environment of its own, made here: it was written for older packages than ours. Both smoothed graphs are then
quantized by int8-static with ranges from the same warm streams, so that what differs is the smoothing. Printed for each:
how far the smoothed fp32 graph is from the original (largest difference of an encoder frame), Mul nodes added, nearness
of the INT8 encoder's frames, utterances with the same tokens, seconds and peak memory of the smoothing.

The peer gets warm chunks of one lookahead only: it cannot calibrate on chunks of different lengths.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx

from nemoport.artifact import Artifact, Recipe
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.quantize import build_variant, int8_static
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import Corpus, read_corpus
from nemoport.stream import Stream, advance
from nemoport.variant import Variant

HERE = Path(__file__).parent
AUDIO = HERE.parent.parent / "reference" / "audio"
PACKAGES = ["onnx==1.23.2", "onnxruntime==1.31.1", "numpy==2.4.6", "psutil", "py-cpuinfo", "pydantic", "prettytable", "scipy"]
PEER = "onnx-neural-compressor==1.0"  # --no-deps: it asks for numpy below 2
SETTINGS = {"alpha 0.5": {"alpha": 0.5}, "alpha 0.5, shared scales": {"alpha": 0.5, "scales_per_op": False}}
CHUNKS, LOOKAHEAD = 60, 6


def environment(folder: Path) -> Path:
    """The peer's Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES, "transformers"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", PEER], check=True)
    return python


def write_feeds(parent: Artifact, corpus: Corpus, path: Path) -> None:
    """Encoder inputs of warm chunks, all of one length."""
    streams = CalibrationStreams(corpus, parent.spec, parent.filterbank(), StreamParameters())
    plan = next(plan for plan in streams.plans if plan.lookahead == LOOKAHEAD)
    session, feeds = OnnxSession.open(parent), {}
    state = session.initial_state(1)
    for chunk in streams.chunks(plan):
        length = np.array([chunk.length], np.int64)
        if int(state.length[0]) == parent.spec.streaming.left_context_enc_frames and len(feeds) < CHUNKS:
            arrays = (chunk.mel[None], length, state.channel, state.time, state.length)
            names = ("audio_signal", "length", "cache_last_channel", "cache_last_time", "cache_last_channel_len")
            feeds[len(feeds)] = dict(zip(names, arrays, strict=True))
        _, _, state = session.encode(chunk.mel[None], length, state)
    np.savez(path, **{f"{i}/{name}": array for i, feed in feeds.items() for name, array in feed.items()})


def transcribed(artifact: Artifact, corpus: Corpus) -> tuple[np.ndarray, list[list[int]]]:
    """Encoder frames f32 [frames, d_model] and tokens by utterance."""
    session, frames, tokens = OnnxSession.open(artifact), [], []
    for utterance in corpus.utterances:
        stream = Stream(session, artifact.filterbank(), LOOKAHEAD)
        stream.push(utterance.samples())
        stream.close()
        while stream.chunks:
            frames += advance(session, [stream])
        tokens.append(list(stream.tokens))
    return np.concatenate(frames), tokens


def static(parent: Artifact, name: str, corpus: Corpus) -> Artifact:
    parameters = int8_static.Parameters()
    made = Variant(parent.folder.parent, Recipe(name, parent.manifest.variant), parent.manifest.checkpoint_sha256)
    shutil.rmtree(made.folder, ignore_errors=True)
    with made.new_folder() as folder:
        int8_static.convert(parent, folder, parameters, corpus, lambda line: None)
        made.write_manifest(folder)
    return Artifact.open(made.folder)


def peer(parent: Artifact, name: str, settings: dict, python: Path, feeds: Path) -> tuple[Artifact, dict]:
    """The peer's smoothed graph as an artifact, and what its run cost."""
    made = Variant(parent.folder.parent, Recipe(name, "fp32"), parent.manifest.checkpoint_sha256)
    shutil.rmtree(made.folder, ignore_errors=True)
    with made.new_folder() as folder:
        for file in parent.manifest.files.values():
            if "decoder" in file.path:
                shutil.copyfile(parent.folder / file.path, folder / file.path)
        cost = feeds.with_name("cost.json")
        files = (parent.encoder, folder / parent.encoder.name, feeds)
        command = [python, HERE / "smoother.py", *files, json.dumps(settings), cost]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        made.write_manifest(folder)
    return Artifact.open(made.folder), json.loads(cost.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares our smoothing with onnx-neural-compressor's.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/peers"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    python = environment(args.work / "venv")
    build = args.work / "build"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    for name in ("config.json", "shared", "fp32"):
        (shutil.copytree if (args.build / name).is_dir() else shutil.copyfile)(args.build / name, build / name)
    fp32 = Artifact.open(build / "fp32")
    corpus = read_corpus(AUDIO / "calibration.jsonl", fp32.spec.frontend.sample_rate_hz)
    evaluation = read_corpus(AUDIO / "eval.jsonl", fp32.spec.frontend.sample_rate_hz)
    evaluation = Corpus(evaluation.path, evaluation.utterances[::3])
    write_feeds(fp32, corpus, args.work / "feeds.npz")
    frames, tokens = transcribed(fp32, evaluation)
    plain = sum(n.op_type == "Mul" for n in onnx.load(fp32.encoder, load_external_data=False).graph.node)

    def row(name: str, smoothed: Artifact, cost: str) -> None:
        same, _ = transcribed(smoothed, evaluation)
        quantized, other_tokens = transcribed(static(smoothed, f"int8-{name.replace(' ', '-')}", corpus), evaluation)
        power, noise = np.square(frames).sum(dtype=np.float64), np.square(quantized - frames).sum(dtype=np.float64)
        muls = sum(n.op_type == "Mul" for n in onnx.load(smoothed.encoder, load_external_data=False).graph.node) - plain
        exact = sum(a == b for a, b in zip(tokens, other_tokens, strict=True))
        print(
            f"| {name} | {np.abs(same - frames).max():.1e} | {muls} | {10 * np.log10(power / noise):.1f} "
            f"| {exact} of {len(tokens)} | {cost} |",
            flush=True,
        )

    print("| smoothing | fp32 changes by | Mul nodes | INT8, dB | same tokens | seconds, MiB |\n|---|---|---|---|---|---|")
    row("none", fp32, "")
    row("nemoport", build_variant(build, "smoothed", AUDIO / "calibration.jsonl", progress=lambda line: None), "")
    for name, settings in SETTINGS.items():
        smoothed, cost = peer(fp32, f"peer {name}".replace(" ", "-").replace(",", ""), settings, python, args.work / "feeds.npz")
        row(f"onnx-neural-compressor, {name}", smoothed, f"{cost['seconds']:.0f}, {cost['peak_mib']:.0f}")


if __name__ == "__main__":
    sys.exit(main())
