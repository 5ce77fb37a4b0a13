"""What x86 without VNNI makes of the integer variants: onnxruntime's own AVX2 kernels, run in an emulated processor.

    python bench/emulated.py --build build/accuracy/reference [--processor Haswell-noTSX]

Needs qemu-x86_64 (Debian: qemu-user). Such a processor adds two products of u8 and s8 in 16 bits, and 2 x 255 x 127 is
more than they hold. For each variant: dB of the encoder's frames against fp32's, and tokens that differ from fp32's, on
this processor and on the emulated one: as the graph is, with session.x64quantprecision=1, which has onnxruntime take u8
weights, and made with --reduce-range. BUILD is only read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hearing import hear

from nemoport.artifact import Artifact
from nemoport.calibration.corpus import read_corpus
from nemoport.quantize import build_variant
from nemoport.validate.sessions.onnxruntime import OnnxSession

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
LOOKAHEAD, EVERY = 6, 6  # of the evaluation utterances
SATURATING = ("int8-dynamic", "int8-static", "int8-smoothquant")
OTHERS = ("int8-weight", "int4-weight")
KEPT = ("config.json", "shared", "fp32", "smoothed", "calibration")


def listen(folder: Path, u8_weights: bool, out: Path) -> None:
    """Writes encoder frames f32 [frames, d_model] and tokens of each utterance into an .npz file."""
    artifact = Artifact.open(folder)
    session = OnnxSession(artifact.spec, artifact.encoder, artifact.decoder, threads=1, u8_weights=u8_weights)
    corpus = read_corpus(AUDIO / "eval.jsonl", artifact.spec.frontend.sample_rate_hz)
    frames, tokens = hear(session, artifact, corpus.utterances[::EVERY], LOOKAHEAD)
    np.savez(out, frames=frames, tokens=json.dumps(tokens))


def heard(folder: Path, u8_weights: bool, processor: str | None, scratch: Path) -> tuple[np.ndarray, list[list[int]]]:
    """In a process of its own, on this processor or on an emulated one."""
    out = scratch / "heard.npz"
    program = f"import emulated, pathlib; emulated.listen(pathlib.Path({str(folder)!r}), {u8_weights}, {str(out)!r})"
    emulator = ["qemu-x86_64", "-cpu", processor] if processor else []
    done = subprocess.run(
        [*emulator, sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{folder.name}: {done.stderr[-2000:]}")
    with np.load(out) as arrays:
        return arrays["frames"], json.loads(str(arrays["tokens"]))


def rows(build: Path, variants: Sequence[str], processor: str, scratch: Path) -> Iterator[tuple[str, ...]]:
    from rapidfuzz.distance import Levenshtein

    exact, said = heard(build / "fp32", False, None, scratch)

    def compare(folder: Path, u8_weights: bool, on: str | None) -> str:
        frames, tokens = heard(folder, u8_weights, on, scratch)
        noise = np.square(frames - exact).sum(dtype=np.float64) / np.square(exact).sum(dtype=np.float64)
        other = sum(map(Levenshtein.distance, said, tokens)) / sum(map(len, said))
        return f"{-10 * np.log10(noise):.1f} dB, {100 * other:.1f} %"

    there = (processor, f"{processor}, x64quantprecision")
    yield ("variant", "this processor", *there, "reduced range, this processor", f"reduced range, {processor}")
    yield ("fp32", "", compare(build / "fp32", False, processor), "", "", "")
    for variant in variants:
        made = build / variant
        cells = [compare(made, False, None), compare(made, False, processor), "", "", ""]
        if variant in SATURATING:  # onnxruntime 1.31.1 refuses blocks of 8 bits with that setting
            cells[2] = compare(made, True, processor)
            reduced = build_variant(
                scratch / "build", variant, AUDIO / "calibration.jsonl", reduce_range=True, progress=lambda line: None
            )
            cells[3:] = [compare(reduced.folder, False, on) for on in (None, processor)]
        yield (variant, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the integer variants on an emulated processor without VNNI.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=[*SATURATING, *OTHERS])
    parser.add_argument("--processor", default="Haswell-noTSX", help="as qemu-x86_64 -cpu help lists them")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "build"
        copy.mkdir()
        for name in KEPT:
            (shutil.copytree if (args.build / name).is_dir() else shutil.copyfile)(args.build / name, copy / name)
        for i, row in enumerate(rows(args.build.resolve(), args.variants, args.processor, Path(folder))):
            print("| " + " | ".join(row) + " |", flush=True)
            if i == 0:
                print("|" + "---|" * len(row), flush=True)


if __name__ == "__main__":
    main()
