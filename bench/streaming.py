"""Encoder time a chunk, row beside row: NeMo, NeMo's own export, both cache layouts in every precision, the machine's limit.

    python bench/streaming.py --build BUILD [--nemo X.nemo] [--nemo-export FOLDER] [--lookaheads 6] [--streams 1]
        [--variant NAME[@PROVIDER]]

Every row is a process of its own (worker.py), all alive at once, and takes its turn chunk by chunk, every lookahead and
number of streams in each round, so that a noisy machine hits all alike and no row finds its weights in the cache.
Printed for each: median and quartiles of milliseconds a chunk, the median of the ratios to the first row in the same
round, times real time of all streams together, the multiple of the limit, peak memory. Nothing is asserted: timing is
no test.

Without --variant every variant runs on the CPU, and ON_GPU on a GPU too: caches stay there, and its memory is asked of
nvidia-smi. What has no provider here is a row that says so. The limit is the CPU's, so rows of a GPU have none.

The limit is the larger of two times: reading the encoder's file once at the bandwidth measured in the same rounds, and
its multiplications at the rate of onnxruntime's integer product of 1024 x 1024 x 4096, measured likewise (fp32 rows:
the float product).

Whole recognisers, from samples to tokens, are rows of whole.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.cache_layout import KV, cache_layout_of
from nemoport.quantize.graph import layer_matmuls
from nemoport.variant import instruction_set

HERE = Path(__file__).parent
WARM_UP_CHUNKS = 12  # until the caches are full and the processor's frequency has settled
PAUSE_SECONDS = 0.1  # a runtime's threads go on spinning for a while, and would take a core from the next row
Setting = tuple[int, int]  # lookahead, streams in one batch
ON_GPU = ("fp16@cuda", "int8-static@cuda")  # published conversions claim that the second takes 45 % less memory than the first
FLOATS = ("fp32", "fp16")  # precisions that the CPU provider multiplies in f32


@dataclass
class Row:
    name: str
    kind: str  # of worker.KINDS
    path: str
    weight_bytes: int = 0  # of the encoder; 0: no limit is shown
    floats: bool = True
    provider: str = "cpu"
    process: subprocess.Popen | None = None
    milliseconds: dict[Setting, list[float]] = field(default_factory=dict)
    peak_bytes: dict[Setting, int] = field(default_factory=dict)

    def start(self, threads: int) -> None:
        command = [sys.executable, HERE / "worker.py", self.kind, self.path, str(threads), self.provider]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ready(self) -> None:
        self._answer()

    def device_bytes(self) -> int:
        """Memory on the GPU, as nvidia-smi has it of the process."""
        command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        used = {int(pid): int(mib) * 2**20 for pid, mib in (line.split(",") for line in lines)}
        return used.get(self.process.pid, 0)

    def run(self, setting: Setting, chunks: int) -> list[float]:
        order = dict(zip(("lookahead", "streams"), setting, strict=True), chunks=chunks)
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = self._answer()
        peak = answer["peak_bytes"] if self.provider == "cpu" else self.device_bytes()
        self.peak_bytes.setdefault(setting, peak)  # before larger settings have run
        return answer["ms"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: exit code {self.process.wait()}")
        return json.loads(line)


def rows_of(options) -> list[Row]:
    rows = []
    if options.nemo:
        rows.append(Row("NeMo (torch)", "nemo", str(options.nemo)))
    for folder in options.nemo_export or []:
        rows.append(Row(f"NeMo export(), {folder.name}", "nemo-export", str(folder)))
    built = sorted((m.parent.name for m in options.build.glob("*/manifest.json")), key=lambda n: (cache_layout_of(n) == KV, n))
    chosen = options.variants or [*built, *(one for one in ON_GPU if one.partition("@")[0] in built)]
    for name, _, provider in (one.partition("@") for one in chosen):
        artifact = Artifact.open(options.build / name)
        size = 0 if provider else artifact.manifest.files["encoder_data"].bytes
        full = f"{name} on {provider}" if provider else name
        rows.append(Row(full, "artifact", str(artifact.folder), size, name.endswith(FLOATS), provider=provider or "cpu"))
    return rows


def available(provider: str) -> bool:
    import onnxruntime as ort

    from nemoport.runtimes.onnxruntime.session import PROVIDERS

    return PROVIDERS.get(provider) in ort.get_available_providers()


def multiplications(build: Path) -> int:
    """Of one encoder frame: an element of a layer's matrix is one."""
    import onnx

    fp32 = next(p for p in (build / "kv-fp32", build / "fp32") if p.is_dir())
    model = onnx.load(Artifact.open(fp32).encoder, load_external_data=False)
    sizes = {i.name: i.dims[0] * i.dims[1] for i in model.graph.initializer if len(i.dims) == 2}
    return sum(sizes[node.input[1]] for node in layer_matmuls(model))


def measure(rows: list[Row], settings: list[Setting], rounds: int) -> None:
    for setting in settings:
        for row in rows:
            row.run(setting, WARM_UP_CHUNKS)
            row.milliseconds[setting] = []
    for _ in range(rounds):
        for setting in settings:
            for row in rows:
                time.sleep(PAUSE_SECONDS)
                row.milliseconds[setting] += row.run(setting, 1)


def report(rows: list[Row], limits: dict[str, Row], setting: Setting, chunk_ms: float, macs: int) -> list[dict]:
    lookahead, streams = setting
    base, figures = rows[0].milliseconds[setting], []
    gib_ms = median_of(limits["read"])
    print("| row | ms a chunk (quartiles) | speed, first row = 1 | times real time | multiple of the limit | peak MB |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        times, peak = row.milliseconds[setting], row.peak_bytes[setting]
        low, middle, high = statistics.quantiles(times, n=4)
        ratio = statistics.median(b / m for b, m in zip(base, times, strict=True))
        product = limits["multiply floats" if row.floats else "multiply integers"]
        compute_ms = median_of(product) * macs * (lookahead + 1) * streams / 2**32
        limit_ms = max(row.weight_bytes / 2**30 * gib_ms, compute_ms) if row.weight_bytes else None
        figures.append(dict(row=row.name, ms=middle, low=low, high=high, ratio=ratio, limit_ms=limit_ms, peak=peak))
        multiple = f"{middle / limit_ms:.2f}" if limit_ms else ""
        print(f"| {row.name} | {middle:.1f} ({low:.1f} to {high:.1f}) | {ratio:.2f} | {streams * chunk_ms / middle:.1f} "
              f"| {multiple} | {peak / 1e6:.0f} |", flush=True)  # fmt: skip
    return figures


def median_of(machine: Row) -> float:
    """Over all settings: what the machine does in a time depends on none."""
    return statistics.median(ms for times in machine.milliseconds.values() for ms in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--variant", action="append", dest="variants", metavar="NAME[@PROVIDER]", help="repeat for several")
    parser.add_argument("--nemo", type=Path, help="the checkpoint, to run NeMo itself")
    parser.add_argument("--nemo-export", type=Path, action="append", help="folder of encoder.onnx, decoder.onnx, spec.json")
    parser.add_argument("--lookaheads", type=int, nargs="+", default=[6])
    parser.add_argument("--streams", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="append the figures to this file, a line a table")
    options = parser.parse_args()

    rows = rows_of(options)
    absent = [row for row in rows if row.provider != "cpu" and not available(row.provider)]
    rows = [row for row in rows if row not in absent]
    limits = {kind: Row(kind, kind, "") for kind in ("read", "multiply floats", "multiply integers")}
    everyone = [*rows, *limits.values()]
    for row in everyone:
        row.start(options.threads)
    for row in everyone:
        row.ready()
    spec = Artifact.open(next(r.path for r in rows if r.kind == "artifact")).spec
    macs = multiplications(options.build)
    settings = [(lookahead, streams) for streams in sorted(options.streams) for lookahead in sorted(options.lookaheads)]
    measure(everyone, settings, options.rounds)
    for lookahead, streams in settings:
        chunk_ms = spec.streaming.chunk_ms(lookahead, spec.frontend)
        print(f"\n{instruction_set()}, {options.threads} threads, lookahead {lookahead} ({chunk_ms:.0f} ms chunks), "
              f"{streams} streams, {options.rounds} rounds; {1074 / median_of(limits['read']):.1f} GB/s\n")  # fmt: skip
        figures = report(rows, limits, (lookahead, streams), chunk_ms, macs)
        for row in absent:
            print(f"| {row.name} | not run here | | | | |", flush=True)
        if options.json:
            head = dict(lookahead=lookahead, streams=streams, threads=options.threads, chunk_ms=chunk_ms)
            with options.json.open("a") as file:
                print(json.dumps({**head, "machine": instruction_set(), "rows": figures}), file=file)
    for row in everyone:
        row.process.stdin.close()
        row.process.wait()


if __name__ == "__main__":
    main()
