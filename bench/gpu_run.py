"""What variants do on a GPU: frames and tokens against the CPU's, NaN, memory, and times by batch. bench/gpu.sh runs it.

    python gpu_run.py FOLDER --out OUT [--provider cuda|torch|cpu] [--minutes 9]

FOLDER: of gpu_pack.py, unpacked. Three tables are printed and written to OUT/gpu.md as they come:

- `frames`: real speech at reference size, each recording and then all of them as one stream, whose caches are warm: dB of the
  encoder's frames against the same variant's on the CPU and against fp32's there, tokens that differ from the CPU's, frames that
  are not finite, and the largest value.
- `memory`: what the card has in use more, with the weights loaded and with the largest batch; full dimensions, random weights.
- `times`: milliseconds a chunk, median of the rounds, all variants in turn, 1 to 64 streams, caches on the device.

Without a CUDA provider (`--provider torch`) frames come from graph_in_torch.py, and the other tables are left out. With
`--provider cpu` it is the same code where there is no card.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from frames_and_tokens import frames_and_tokens
from streaming import Row

from nemoport.artifact import Artifact
from nemoport.runtimes.onnxruntime.device import DeviceSession
from nemoport.runtimes.onnxruntime.session import PROVIDERS, OnnxSession
from nemoport.speech.corpus import read_corpus

PRECISIONS = ("fp32", "fp16", "int8-static")
LOOKAHEAD = 6
BATCHES = (1, 2, 4, 8, 16, 32, 64)
WARM_UP_CHUNKS = 12


class Watched:
    """A session that counts frames which are not finite, and keeps the largest value of the others."""

    def __init__(self, session):
        self._session, self.bad, self.largest = session, 0, 0.0

    def __getattr__(self, name: str):
        return getattr(self._session, name)

    def encode(self, mel, lengths, state):
        found = self._session.encode(mel, lengths, state)
        finite = np.isfinite(found[0])
        self.bad += int((~finite.all(-1)).sum())
        self.largest = max(self.largest, float(np.abs(found[0][finite]).max(initial=0)))
        return found


def opened(artifact: Artifact, provider: str):
    if provider == "torch":
        import torch
        from graph_in_torch import TorchGraph

        session = OnnxSession.open(artifact, "cpu")
        session._encoder = TorchGraph(artifact.encoder, "cuda" if torch.cuda.is_available() else "cpu")
        return session
    return DeviceSession.open(artifact, provider)


def variants_of(build: Path) -> list[str]:
    """The precisions that are there, in both cache layouts."""
    return [name for precision in PRECISIONS for name in (precision, f"kv-{precision}") if (build / name).is_dir()]


def decibels(found: np.ndarray, expected: np.ndarray) -> str:
    both = np.isfinite(found).all(-1)
    noise = np.square(found[both] - expected[both]).sum(dtype=np.float64)
    return f"{10 * np.log10(np.square(expected[both]).sum(dtype=np.float64) / noise):.1f}" if noise else "the same bits"


def frames(build: Path, recordings: Path, provider: str) -> Iterator[list[str]]:
    from rapidfuzz.distance import Levenshtein

    yield ["variant", "speech", "dB, of the CPU's", "dB, of the CPU's fp32", "tokens other", "frames not finite", "largest value"]
    utterances = read_corpus(recordings, 16000).utterances
    samples = np.concatenate([one.samples() for one in utterances])
    whole = SimpleNamespace(samples=lambda: samples)
    for title, chosen in ((f"{len(utterances)} recordings", utterances), (f"one stream, {len(samples) // 16000} s", [whole])):
        exact: dict[str, np.ndarray] = {}
        for variant in variants_of(build):
            artifact = Artifact.open(build / variant)
            cpu, tokens = frames_and_tokens(OnnxSession.open(artifact, "cpu"), artifact, chosen, LOOKAHEAD)
            exact.setdefault("fp32", cpu)
            session = Watched(opened(artifact, provider))
            found, others = frames_and_tokens(session, artifact, chosen, LOOKAHEAD)
            differing = sum(map(Levenshtein.distance, tokens, others))
            count = f"{differing} of {sum(map(len, tokens))}"
            levels = [decibels(found, cpu), decibels(found, exact["fp32"])]
            yield [variant, title, *levels, count, str(session.bad), f"{session.largest:.4g}"]


def used_mb(row: Row) -> float:
    """MB in use on the card, which is ours alone; of a CPU run the process's peak."""
    if row.provider == "cpu":
        return max(row.peak_bytes.values(), default=0) / 1e6
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) * 1.048576


class Measured:
    """Rows of a build, each a process of its own, and what the card has in use more for each."""

    def __init__(self, build: Path, provider: str):
        self.rows, self.loaded, self.grown = [], {}, {}
        for name in variants_of(build):
            row = Row(name, "artifact", str(build / name), provider=provider)
            before = used_mb(row)
            row.start(0)
            row.ready()
            self.loaded[name], self.grown[name] = used_mb(row) - before, 0.0
            self.rows.append(row)

    def times(self, batches: Sequence[int], rounds: int, deadline: float) -> Iterator[list[str]]:
        yield ["streams", *(f"{row.name}, ms (times real time)" for row in self.rows)]
        spec = Artifact.open(self.rows[0].path).spec
        chunk_ms = spec.streaming.chunk_ms(LOOKAHEAD, spec.frontend)
        for batch in batches:
            if time.monotonic() > deadline:
                yield [str(batch), *("not run: no time was left" for _ in self.rows)]
                continue
            found: dict[str, list[float]] = {row.name: [] for row in self.rows}
            for row in self.rows:
                before = used_mb(row)
                row.run((LOOKAHEAD, batch), WARM_UP_CHUNKS)
                self.grown[row.name] += max(0.0, used_mb(row) - before)
            for _ in range(rounds):
                for row in self.rows:
                    found[row.name] += row.run((LOOKAHEAD, batch), 1)
            medians = [statistics.median(times) for times in found.values()]
            yield [str(batch), *(f"{ms:.2f} ({batch * chunk_ms / ms:.0f})" for ms in medians)]

    def memory(self) -> Iterator[list[str]]:
        yield ["variant", "encoder and decoder on the disk, MB", "loaded, MB", "with the largest batch, MB", "of fp16's"]
        every = {row.name: self.loaded[row.name] + self.grown[row.name] for row in self.rows}
        for row in self.rows:
            disk = sum(path.stat().st_size for path in Path(row.path).glob("*.data")) / 1e6
            base = every.get(row.name.replace("int8-static", "fp16").replace("fp32", "fp16"))
            of = f"{every[row.name] / base:.2f}" if base else ""
            yield [row.name, f"{disk:.0f}", f"{self.loaded[row.name]:.0f}", f"{every[row.name]:.0f}", of]

    def close(self) -> None:
        for row in self.rows:
            row.process.stdin.close()
            row.process.wait()


def show(title: str, rows: Iterator[list[str]], out: Path) -> None:
    with (out / "gpu.md").open("a") as file:
        for number, row in enumerate(rows):
            lines = [f"\n## {title}\n"] if not number else []
            lines += ["| " + " | ".join(row) + " |"] + ([] if number else ["|" + "---|" * len(row)])
            for line in lines:
                print(line, flush=True)
                print(line, file=file, flush=True)


def machine(provider: str) -> Iterator[list[str]]:
    import onnxruntime as ort

    yield ["what", "found"]
    yield ["onnxruntime", f"{ort.__version__}: {', '.join(ort.get_available_providers())}"]
    yield ["provider", provider]
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        yield ["card", subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()]


def cuda_works(build: Path) -> bool:
    """Whether a graph runs on CUDA: the provider is listed even where its libraries are missing, and falls back to the CPU."""
    import onnxruntime as ort

    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return False
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # those of torch's packages
    session = ort.InferenceSession(str(build / variants_of(build)[0] / "decoder_model.onnx"), providers=[PROVIDERS["cuda"]])
    return PROVIDERS["cuda"] in session.get_providers()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--provider", choices=("cuda", "torch", "cpu"), help="default: cuda where it works, else torch")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=8)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    small, full, corpus = (options.folder / name for name in ("reference", "full", "speech/speech.jsonl"))
    provider = options.provider or ("cuda" if cuda_works(small) else "torch")
    show("Machine", machine(provider), options.out)
    show("Frames", frames(small, corpus, provider), options.out)
    if provider == "torch":
        sys.exit("onnxruntime has no CUDA here: memory and times were not measured")
    if full.is_dir():
        measured = Measured(full, provider)
        try:
            show("Times", measured.times(options.batches, options.rounds, deadline), options.out)
            show("Memory", measured.memory(), options.out)
        finally:
            measured.close()


if __name__ == "__main__":
    main()
