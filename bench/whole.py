"""Whole recognisers side by side, samples to tokens, on speech: ours, NeMo, and others on the same checkpoint.

    python bench/whole.py --audio A --results R.jsonl --row KIND PATH [--row KIND PATH]... [--lookaheads 0 1 6 13] [--streams 1]
        [--threads 1] [--rounds 12] [--turn SECONDS] [--minutes 9]
    python bench/whole.py --audio A --check SECONDS --row KIND PATH...
    python bench/whole.py --results R.jsonl [--base NAME]

KIND, in the environments of peers/environments.py (`make peers`, `make genai`): nemoport (a variant's folder), nemo (a
checkpoint), sherpa and genai (folders of peers/sherpa.py and peers/genai.py, each of one lookahead), transcribe-cpp, crispasr and
crispasr-caches (files of peers/gguf_convert.py; see peers/gguf_turns.py), read (no model: a GiB of memory is read).
nemoport:onnxruntime-1.32 runs on that onnxruntime. A: a corpus, which is joined to one recording and repeated, or `pseudo` for
the pseudo-speech on which a random model emits tokens.

Every row is a process of its own, stopped while others have their turn. A turn is one chunk, or as many as fill --turn; of
CrispASR it is one recording. A row that cannot (a lookahead that a peer lacks, several streams at once) is left out there.
Results are appended; what has its rounds already is not run again, and after --minutes the run ends between two rounds, to be
gone on with by the same call. The rows that are in memory together share their rounds, and the table's ratios are of one round:
give each group the same first row.

Processor time is that of the whole process, up to 0.1 s behind each chunk, so that threads that spin on count. `times reading the
weights` is processor time over that of reading the file with the weights once, of row `read`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nemoport.speech.corpus import read_corpus
from nemoport.variant import instruction_set

HERE = Path(__file__).parent
sys.path.append(str(HERE / "peers"))
import environments  # noqa: E402
import turns  # noqa: E402

WARM_UP_SECONDS = 6.5  # of audio, until the caches are full; no fewer chunks than this:
WARM_UP_CHUNKS = 6
GGUF = {"transcribe-cpp": (0, 1, 6, 13), "crispasr": (0, 6, 13), "crispasr-caches": (0, 6, 13)}  # and their lookaheads
PSEUDO_SECONDS = 60.0


@dataclass
class Row:
    kind: str
    path: Path
    process: subprocess.Popen | None = None
    turns: list[dict] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.path.name}"

    def can(self, lookahead: int, streams: int) -> bool:
        if self.kind in GGUF:
            return streams == 1 and lookahead in GGUF[self.kind]
        if self.kind == "sherpa":
            return json.loads((self.path / "config.json").read_text())["sherpa_onnx"]["lookahead"] == lookahead
        if self.kind == "genai":
            model = json.loads((self.path / "genai_config.json").read_text())["model"]
            return streams == 1 and model["chunk_samples"] == (lookahead + 1) * turns.FRAME_SAMPLES
        return True

    def weight_bytes(self) -> int:
        """Of the files that hold a model's weights; of the encoder alone where they are apart."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.glob("*encoder*"))

    def start(self, threads: int, audio: Path) -> None:
        kind, _, runtime = self.kind.partition(":")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        if runtime:
            environment["PYTHONPATH"] = f"{environments.FOLDERS[runtime]}:{environment.get('PYTHONPATH', '')}"
        command = [sys.executable, HERE / "whole_worker.py", kind]
        if kind in GGUF:
            command = [environments.python_of("ggml"), HERE / "peers" / "gguf_turns.py", kind]
        if kind == "genai":
            command = [environments.python_of("genai"), HERE / "peers" / "genai_worker.py"]
        command += [self.path, str(threads), audio]
        log = None if os.environ.get("VERBOSE") else subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        self._answer()

    def run(self, lookahead: int, streams: int, chunks: int, warm: bool = False) -> dict:
        """warm: without the pause behind each chunk, for what is not measured."""
        os.kill(self.process.pid, signal.SIGCONT)
        order = {"lookahead": lookahead, "streams": streams, "chunks": chunks, "warm": warm}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        if self.process:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.stdin.close()
            self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: exit code {self.process.wait()}; VERBOSE=1 shows what it printed")
        os.kill(self.process.pid, signal.SIGSTOP)
        return json.loads(line)


def samples_of(audio: str) -> np.ndarray:
    """f32 at 16 kHz"""
    if audio == "pseudo":
        from nemoport.reference.random_checkpoint import pseudo_speech

        return pseudo_speech(1, PSEUDO_SECONDS)
    return np.concatenate([one.samples() for one in read_corpus(Path(audio), turns.RATE_HZ).utterances])


def measure(rows: list[Row], options: argparse.Namespace, threads: int, audio: Path, deadline: float) -> None:
    """Every setting of one number of threads; appends a line for each row and setting to the results."""
    done = defaultdict(int)
    for line in read_results(options.results):
        done[line["row"], line["threads"], line["lookahead"], line["streams"]] += len(line["ms"])
    session = f"{time.time():.0f}"
    for lookahead in options.lookaheads:
        for streams in options.streams:
            chosen = [row for row in rows if row.can(lookahead, streams)]
            left = options.rounds - min((done[row.name, threads, lookahead, streams] for row in chosen), default=options.rounds)
            if left <= 0 or time.time() > deadline:
                continue
            for row in chosen:
                if row.process is None:
                    row.start(threads, audio)
            chunk_s = (lookahead + 1) * turns.FRAME_SAMPLES / turns.RATE_HZ
            chunks = max(1, round(options.turn / chunk_s))
            warm = max(WARM_UP_CHUNKS, chunks, round(WARM_UP_SECONDS / chunk_s))
            found = {row.name: dict(ms=[], cpu_ms=[], chunks=warm) for row in chosen}
            for row in chosen:
                row.run(lookahead, streams, chunks if row.kind.startswith("crispasr") else warm, warm=True)
            load = os.getloadavg()[0]
            for turn in range(left):
                if time.time() > deadline:
                    break
                for row in (*chosen[turn % len(chosen) :], *chosen[: turn % len(chosen)]):  # nobody always follows the same row
                    answer = row.run(lookahead, streams, chunks)
                    for key in ("ms", "cpu_ms"):
                        found[row.name][key].append(statistics.mean(answer[key]))
                    found[row.name] |= {"tokens": answer["tokens"], "peak_bytes": answer["peak_bytes"]}
                    found[row.name]["chunks"] += chunks
            head = dict(session=session, threads=threads, lookahead=lookahead, streams=streams, load=[load, os.getloadavg()[0]])
            with options.results.open("a") as file:
                for row in chosen:
                    if found[row.name]["ms"]:
                        print(json.dumps({"row": row.name, "bytes": row.weight_bytes(), **head, **found[row.name]}), file=file)
    for row in rows:
        row.end()
        row.process = None


def read_results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(rows: list[Row], lookaheads: list[int], seconds: float, audio: Path) -> None:
    """Whether all transcribe alike: the same audio through each row alone."""
    print("| lookahead | row | tokens | tokens a chunk | words in common with the first row |\n|---|---|---|---|---|")
    for lookahead in lookaheads:
        first = None
        for row in (row for row in rows if row.can(lookahead, 1)):
            chunks = round(seconds * turns.RATE_HZ / turns.FRAME_SAMPLES / (lookahead + 1))
            row.start(1, audio)
            answer = row.run(lookahead, 1, chunks, warm=True)
            row.end()
            words = answer["text"].split()
            first = words if first is None else first
            same = sum(block.size for block in difflib.SequenceMatcher(None, first, words, autojunk=False).get_matching_blocks())
            print(f"| {lookahead} | {row.name} | {answer['tokens'] or ''} | {per_chunk(answer['tokens'], chunks)} "
                  f"| {same} of {len(first)}, {len(words)} written |", flush=True)  # fmt: skip


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def table(lines: list[dict], base: str | None) -> None:
    """A table a setting: medians and quartiles over all rounds; the ratios to the base row are of the same round."""
    settings = sorted({(line["threads"], line["streams"], line["lookahead"]) for line in lines})
    for threads, streams, lookahead in settings:
        here = [line for line in lines if (line["threads"], line["streams"], line["lookahead"]) == (threads, streams, lookahead)]
        names = list(dict.fromkeys(line["row"] for line in here))
        first = base or names[0]
        read_ms = [ms for line in here if line["row"].startswith("read") for ms in line["cpu_ms"]]
        loads = [load for line in here for load in line["load"]]
        chunk_ms = 1000 * (lookahead + 1) * turns.FRAME_SAMPLES / turns.RATE_HZ
        print(f"\n{instruction_set()}, {threads} threads, lookahead {lookahead} ({chunk_ms:.0f} ms chunks), {streams} streams; "
              f"load {min(loads):.1f} to {max(loads):.1f}\n")  # fmt: skip
        print("| row | rounds | processor time a chunk, ms | to the first | wall, ms | to the first | times real time "
              "| times reading the weights | peak MB | tokens a chunk |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|---|")
        for name in names:
            mine = [line for line in here if line["row"] == name]
            cells = {key: [value for line in mine for value in line[key]] for key in ("ms", "cpu_ms")}
            ratios = {}
            for key in cells:
                pairs = []
                for line in mine:
                    other = next((o for o in here if o["row"] == first and o["session"] == line["session"]), None)
                    pairs += [b / m for b, m in zip(line[key], other[key], strict=False)] if other else []
                ratios[key] = quartiles_of_ratio(pairs)
            read = statistics.median(read_ms) / 2**30 if read_ms else None
            wall = statistics.median(cells["ms"])
            work = statistics.median(cells["cpu_ms"])
            multiple = f"{work / (read * mine[0]['bytes']):.1f}" if read and mine[0]["bytes"] and streams == 1 else ""
            if name.startswith("read"):
                continue
            peak_mb = max(line["peak_bytes"] for line in mine) / 1e6
            columns = [name, str(len(cells["ms"])), quartiles(cells["cpu_ms"]), ratios["cpu_ms"], quartiles(cells["ms"])]
            columns += [ratios["ms"], f"{streams * chunk_ms / wall:.1f}", multiple, f"{peak_mb:.0f}"]
            print("|", " | ".join([*columns, per_chunk(mine[-1]["tokens"], mine[-1]["chunks"])]), "|", flush=True)


def per_chunk(tokens: int | None, chunks: int) -> str:
    return "" if tokens is None else f"{tokens / chunks:.2f}"


def quartiles_of_ratio(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return ""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", nargs=2, default=[], metavar=("KIND", "PATH"), help="repeat for several")
    parser.add_argument("--audio", default="pseudo", help="manifest of a corpus, or pseudo")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--check", type=float, metavar="SECONDS", help="measure nothing: compare what the rows transcribe")
    parser.add_argument("--base", help="row that the table's ratios are to; default: the first")
    parser.add_argument("--lookaheads", type=int, nargs="+", default=[6])
    parser.add_argument("--streams", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--turn", type=float, default=0.0, metavar="SECONDS", help="of audio; default: one chunk")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after this time, between two rounds")
    options = parser.parse_args()
    deadline = time.time() + 60 * options.minutes
    rows = [Row(kind, Path(path)) for kind, path in options.row]
    if not options.turn and not options.check and any(row.kind.startswith("crispasr") for row in rows):
        parser.error("CrispASR transcribes whole recordings: --turn says how long one is")
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "audio.npy"
        try:
            if rows:
                np.save(audio, samples_of(options.audio))
            if options.check:
                check(rows, options.lookaheads, options.check, audio)
            elif rows:
                for threads in options.threads:
                    measure(rows, options, threads, audio, deadline)
        finally:
            for row in rows:
                if row.process and row.process.poll() is None:
                    row.process.kill()
    if options.results:
        table(read_results(options.results), options.base)


if __name__ == "__main__":
    main()
