"""Exports at the published sizes: seconds, peak memory and file sizes of each step, and whether the tokens are NeMo's; a table of
docs/kinds/table.md.

python bench/full_size.py parakeet-rnnt-1.1b parakeet-tdt-1.1b --work /tmp/big

Checkpoints are random (nemoport.reference.random_checkpoint) and emit tokens that follow the audio. Each takes about 3.5 times
its own bytes of disk, and more with --targets, and is deleted before the next. With --targets the checkpoint is exported to those
too, which gives a second table; programs of Core ML run on a Mac only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

COLUMNS = (
    "checkpoint",
    "kind",
    "M parameters",
    "export",
    "fp32 MB",
    "quantize",
    "INT8 MB",
    "transcribe, fp32",
    "NeMo",
    "tokens of NeMo",
    "fp32 token-exact",
    "INT8: other tokens",
)
TARGET_COLUMNS = ("checkpoint", "target", "export", "MB", "transcribe", "tokens other than NeMo's")
RUN_HERE = ("openvino", "litert")  # targets whose runtime transcribes on Linux


@dataclass(frozen=True)
class Step:
    """processor_s: of all its processes; peak: bytes that the largest of them had in memory."""

    processor_s: float
    peak: int
    output: str

    def __str__(self) -> str:
        return f"{self.processor_s:.0f} s, {self.peak / 2**30:.1f} GiB"


def measured(*arguments: object) -> Step:
    """Runs a command of Python; exits with its error where it fails."""
    print(*arguments, file=sys.stderr, flush=True)
    process = subprocess.Popen([sys.executable, "-m", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments} failed: {process.returncode}")
    step = Step(usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, output)
    print(step, file=sys.stderr, flush=True)
    return step


def megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.0f}"


def differing(found: list[int], wanted: list[int]) -> int:
    """Edits between two lists of tokens."""
    import jiwer

    out = jiwer.process_words(" ".join(map(str, wanted)), " ".join(map(str, found)))
    return out.substitutions + out.deletions + out.insertions


def exact_by_windows(variant: Path, clip: Path, run: Path) -> bool:
    """Whether a buffered model has the tokens of NeMo's run, whose name ends in the frames of a window and those behind them."""
    _, *_, chunk, right = run.stem.split("-")
    text = measured("nemoport.cli", "transcribe", variant, clip, "--json", "--chunk-frames", chunk, "--right-frames", right)
    return json.loads(text.output)["tokens"] == json.loads(run.read_text())["utterances"][0]["tokens"]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rows(preset: str, work: Path, options: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    """Measures one checkpoint, in an empty folder. Returns its row, and those of its targets."""
    import soundfile

    from nemoport.reference.random_checkpoint import pseudo_speech

    precision, head = options.precision, options.head
    checkpoint, build, clip, corpus = work / f"{preset}.nemo", work / "build", work / "clip.wav", work / "clip.jsonl"
    made = measured("nemoport.reference.random_checkpoint", "--preset", preset, "--out", checkpoint)
    soundfile.write(clip, pseudo_speech(77, options.seconds), 16000)
    corpus.write_text(json.dumps({"audio_filepath": str(clip), "duration": options.seconds, "text": "none"}) + "\n")
    of = ["--checkpoint", checkpoint, "--build", build, *(["--head", head] if head else [])]
    export = measured("nemoport.cli", "export", *of)
    quantize = measured("nemoport.cli", "quantize", precision, "--build", build) if precision else None
    oracle = measured("nemoport.cli", "oracle", *of, "--corpus", corpus)
    streams = sorted(build.glob("oracle/*/streaming-*.json"))
    run = json.loads((streams or sorted(build.glob("oracle/*/offline*.json")))[-1].read_text())
    wanted = run["utterances"][0]["tokens"]
    as_nemo = ["--lookahead", run["lookahead"], "--flush", "nemo"] if streams else []
    variants = ["fp32", precision] if precision else ["fp32"]
    texts = [measured("nemoport.cli", "transcribe", build / v, clip, "--json", *as_nemo) for v in variants]
    fp32, *int8 = (json.loads(step.output)["tokens"] for step in texts)
    exact = "yes" if fp32 == wanted else f"no: {differing(fp32, wanted)} others"
    if by_windows := sorted(build.glob("oracle/*/buffered-*.json")):
        exact += f"; by windows {sum(map(partial(exact_by_windows, build / 'fp32', clip), by_windows))} of {len(by_windows)}"
    kind = json.loads((build / "config.json").read_text())["spec"]["kind"]
    targets = []
    for target, _, target_precision in (name.partition("/") for name in options.targets):
        exported = measured("nemoport.cli", "export", *of, "--target", target, "--precision", target_precision)
        folder = build / f"{target}-{target_precision}"
        cells = [preset, folder.name, str(exported), megabytes(folder)]
        if target in RUN_HERE:
            text = measured("nemoport.cli", "transcribe", folder, clip, "--json", *as_nemo)
            cells += [str(text), str(differing(json.loads(text.output)["tokens"], wanted))]
        targets.append([*cells, "-", "-"][: len(TARGET_COLUMNS)])
    return [
        preset,
        kind,
        made.output.split(": ")[1].split(" M ")[0],
        str(export),
        megabytes(build / "fp32"),
        str(quantize or "-"),
        megabytes(build / precision) if precision else "-",
        str(texts[0]),
        str(oracle),
        str(len(wanted)),
        exact,
        str(differing(int8[0], wanted)) if precision else "-",
    ], targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="+", help="of nemoport.reference.presets")
    parser.add_argument("--work", type=Path, required=True, help="a folder, which must not exist yet")
    parser.add_argument("--precision", default="int8-weight", help='beside fp32; "" for none')
    parser.add_argument("--head", help="of a hybrid, or of a CTC model")
    parser.add_argument("--targets", default=[], type=lambda text: text.split(","), help="such as openvino/int8,coreml/fp32")
    # 300 encoder frames by default: more than twice the window of parakeet-tdt_ctc-1.1b.
    parser.add_argument("--seconds", type=float, default=24.0, help="of the clip; default: %(default)g")
    options = parser.parse_args()
    print(f"{line(COLUMNS)}\n|{'---|' * len(COLUMNS)}", flush=True)
    targets = []
    for preset in options.presets:
        options.work.mkdir(parents=True)
        try:
            row, of_targets = rows(preset, options.work, options)
        finally:
            shutil.rmtree(options.work)
        print(line(row), flush=True)
        targets += of_targets
    if targets:
        print(f"\n{line(TARGET_COLUMNS)}\n|{'---|' * len(TARGET_COLUMNS)}", *map(line, targets), sep="\n")


if __name__ == "__main__":
    main()
