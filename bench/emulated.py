"""What x86 without VNNI makes of the integer variants: onnxruntime's own AVX2 kernels, run in an emulated processor.

    python bench/emulated.py --build build/accuracy/reference [--processor Haswell-noTSX]

Needs qemu-x86_64 (Debian: qemu-user or qemu-user-static). Such a processor adds two products of u8 and s8 in 16 bits, and
2 x 255 x 127 is more than they hold. For each variant: dB of the encoder's frames against fp32's, and tokens that differ from
fp32's, on this processor and on the emulated one, as it is and with weights of full range. BUILD is only read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from frames_and_tokens import frames_and_tokens

from nemoport.artifact import Artifact
from nemoport.quantize import build_variant
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import read_corpus

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
LOOKAHEAD = 6  # of a streaming model
UTTERANCES = 12
FULL_RANGE = {name: f"{name}-full-range" for name in ("int8-dynamic", "int8-static", "int8-smoothquant")}
OTHERS = ("int8-weight", "int4-weight")
KEPT = ("config.json", "shared", "fp32", "smoothed", "calibration")


class Noisy:
    """A session whose features have relative noise: what differences in the last bits come to."""

    def __init__(self, session, level: float):
        self._session, self._level, self._random = session, level, np.random.default_rng(0)

    def __getattr__(self, name: str):
        return getattr(self._session, name)

    def encode(self, mel, lengths, state):
        noise = 1 + self._level * self._random.standard_normal(mel.shape, np.float32)
        return self._session.encode(mel * noise, lengths, state)


def write_found(folder: Path, corpus: Path, out: Path, noise: float = 0.0) -> None:
    """Writes encoder frames f32 [frames, d_model] and tokens of each utterance into an .npz file."""
    artifact = Artifact.open(folder)
    session = Noisy(OnnxSession.open(artifact, threads=1), noise)
    utterances = read_corpus(corpus, artifact.spec.frontend.sample_rate_hz).utterances
    chosen = utterances[:: max(1, len(utterances) // UTTERANCES)][:UTTERANCES]
    frames, tokens = frames_and_tokens(session, artifact, chosen, LOOKAHEAD if artifact.spec.streaming else None)
    np.savez(out, frames=frames, tokens=json.dumps(tokens))


def emulator(architecture: str) -> str:
    """Returns qemu for programs of an architecture; raises SystemExit where there is none."""
    names = (f"qemu-{architecture}", f"qemu-{architecture}-static")
    found = next(filter(None, map(shutil.which, names)), None)
    return found or sys.exit(f"no {' or '.join(names)} (Debian: qemu-user or qemu-user-static)")


def in_process(folder: Path, corpus: Path, processor: str | None) -> tuple[np.ndarray, list[list[int]]]:
    """In a process of its own, on this processor or on an emulated x86."""
    return in_another_process([*([emulator("x86_64"), "-cpu", processor] if processor else []), sys.executable], folder, corpus)


def in_another_process(
    python: Sequence[str], folder: Path, corpus: Path, environment: Mapping[str, str] = os.environ, noise: float = 0.0
) -> tuple[np.ndarray, list[list[int]]]:
    """python: the command of an interpreter that can import nemoport in `environment`. Returns what `write_found` writes."""
    with TemporaryDirectory() as scratch:
        out = f"{scratch}/found.npz"
        arguments = ", ".join(f"pathlib.Path({str(path)!r})" for path in (folder, corpus, out))
        program = f"import emulated, pathlib; emulated.write_found({arguments}, noise={noise})"
        command, here = [*python, "-c", program], Path(__file__).parent
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{folder.name}: {done.stderr[-2000:]}")
        with np.load(out) as arrays:
            return arrays["frames"], json.loads(str(arrays["tokens"]))


def rows(build: Path, copy: Path, corpus: Path, calibration: Path, processor: str) -> Iterator[tuple[str, ...]]:
    """copy: of the build, in which variants with weights of full range are made."""
    from rapidfuzz.distance import Levenshtein

    exact, wanted = in_process(build / "fp32", corpus, None)

    def compare(folder: Path, on: str | None) -> str:
        frames, tokens = in_process(folder, corpus, on)
        noise = np.square(frames - exact).sum(dtype=np.float64) / np.square(exact).sum(dtype=np.float64)
        other = sum(map(Levenshtein.distance, wanted, tokens)) / sum(map(len, wanted))
        return f"{-10 * np.log10(noise):.1f} dB, {100 * other:.1f} %"

    yield ("variant", "this processor", processor, "full range, this processor", f"full range, {processor}")
    yield ("fp32", "", compare(build / "fp32", processor), "", "")
    for variant in (*FULL_RANGE, *OTHERS):
        if (build / variant).is_dir():
            full = ["", ""]
            if variant in FULL_RANGE:
                made = build_variant(copy, FULL_RANGE[variant], calibration, progress=lambda line: None).folder
                full = [compare(made, on) for on in (None, processor)]
            yield (variant, *(compare(build / variant, on) for on in (None, processor)), *full)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the integer variants on an emulated processor without VNNI.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, default=AUDIO / "eval.jsonl")
    parser.add_argument("--calibration", type=Path, default=AUDIO / "calibration.jsonl")
    parser.add_argument("--processor", default="Haswell-noTSX", help="as qemu-x86_64 -cpu help lists them")
    args = parser.parse_args()
    build = args.build.resolve()
    with TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in KEPT:
            (shutil.copytree if (build / name).is_dir() else shutil.copyfile)(build / name, copy / name)
        for i, row in enumerate(rows(build, copy, args.corpus.resolve(), args.calibration.resolve(), args.processor)):
            print("| " + " | ".join(row) + " |", flush=True)
            if i == 0:
                print("|" + "---|" * len(row), flush=True)


if __name__ == "__main__":
    main()
