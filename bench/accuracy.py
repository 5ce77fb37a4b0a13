"""Every variant on the reference checkpoint and on its hard versions, same audio: writes bench/accuracy-tables.md.

    python bench/accuracy.py --build build/accuracy [--further 3000] [--natural 3000] [--only CASE ...] [--jobs N]

A hard version is the same function, bit for bit, with outlier channels (nemoport.reference.outliers), so that every
difference between its variants and the plain checkpoint's is the quantizer's doing. What is built only to be compared
(per-tensor dynamic, cold-cache static, ...) stands beside what is packaged. Besides the committed evaluation speech it
transcribes --further utterances made with espeak-ng (more_speech.py), and apart from these --natural ones in Kokoro's
voices (nemoport.reference.kokoro_corpus, 0.5 s of a core each; needs npm and espeak-ng). Where either cannot be made,
the rest is used and the tables say so. Run again, it goes on where it stopped. Speed is measured at the end, all variants
in turn, round after round.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import further
import more_speech
import natural_speech
import pooled

from nemoport.artifact import Manifest
from nemoport.cache_layout import KV, NEMO
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.quantize import build_variant
from nemoport.reference.outliers import rewrite
from nemoport.speech.corpus import check_disjoint, read_corpus
from nemoport.validate.context import Context
from nemoport.validate.gate_result import STAMPS, GateResult
from nemoport.validate.gates import cost
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.result_store import read_results, results_path
from nemoport.validate.run import comparisons, judge
from nemoport.variant import FP32, instruction_set

REFERENCE = Path(__file__).parent.parent / "reference"
CHECKPOINT = REFERENCE / "checkpoints" / "streaming-en.nemo"
EXPORTED = (FP32,)
PACKAGED = (
    "fp16", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight", "int4-weight", "int4-mixed",
    "kv-int8-dynamic", "kv-int8-smoothquant", "kv-int8-weight", "kv-int4-weight", "kv-int4-mixed",
)  # fmt: skip
COMPARED = ("int8-dynamic-plain", "int8-dynamic-per-tensor", "int8-static-cold", "int4-weight-nearest")
HARD = ((0, 32, 0.02), (1, 128, 0.01))  # seed, strength, share of the channels
GATES = ("longform", "numeric", "structure", "tokens", "wer")  # `nemoport validate` runs all


@dataclass(frozen=True)
class Setup:
    """What all checkpoints have in common. corpus, further, natural, calibration: manifests; threads: of a session while
    several variants are measured at once."""

    variants: Sequence[str]
    corpus: Path
    further: Sequence[Path]
    natural: Sequence[Path]
    calibration: Path
    threads: int


@dataclass(frozen=True)
class Case:
    """A checkpoint and its builds."""

    name: str
    title: str
    checkpoint: Path
    build: Path


@dataclass(frozen=True)
class Row:
    """A variant in the table. snr_db: of the encoder's frames against NeMo's; pooled: of all speech; natural: of
    Kokoro's alone, None without it; speed: times real time, None if it was not measured; failed: gates that reject it."""

    variant: str
    megabytes: float
    snr_db: float
    pooled: pooled.Pooled
    natural: pooled.Pooled | None
    worst_minute: float
    speed: float | None
    failed: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        return (
            self.variant,
            ", ".join(self.failed) or "none",
            f"{self.megabytes:.1f}",
            f"{self.snr_db:.1f}",
            *of_words(self.pooled),
            *of_words(self.natural),
            f"{self.worst_minute:+.1f}",
            "-" if self.speed is None else f"{self.speed:.0f}",
        )


WORDS = ("WER", "points above NeMo (95 %)", "tokens other")
HEAD = ("variant", "rejected by", "MB", "dB", *WORDS, *(f"Kokoro: {name}" for name in WORDS), "worst minute", "x real time")


def of_words(found: pooled.Pooled | None) -> tuple[str, ...]:
    """Cells under WORDS."""
    if found is None:
        return ("-",) * len(WORDS)
    above = found.above
    spread = f"{above.value:+.2f} ({above.lower:+.2f} to {above.upper:+.2f})"
    return f"{found.wer:.2f}", spread, f"{100 * found.tokens_other:.2f} %"


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def cases(build: Path, only: Sequence[str] | None = None) -> list[Case]:
    """Made where they are not there. only: names of those that are wanted, default all."""
    found = [Case("reference", "The reference checkpoint", CHECKPOINT, build / "reference")]
    for seed, strength, share in HARD:
        hard = build / f"hard-{seed}-{strength}.nemo"
        if not hard.is_file() and (not only or hard.stem in only):
            rewrite(CHECKPOINT, hard, seed, strength, share)
        title = f"Outliers of {strength} times in {share:.0%} of the channels, seed {seed}"
        found.append(Case(hard.stem, title, hard, build / hard.stem))
    return [case for case in found if not only or case.name in only]


def make(setup: Setup, case: Case) -> None:
    """Builds the variants, and records NeMo, and on the further speech fp32 in its place."""
    checkpoint = read_checkpoint(str(case.checkpoint))
    rate_hz = checkpoint.spec.frontend.sample_rate_hz
    for manifest in (setup.corpus, *setup.further, *setup.natural):
        check_disjoint(read_corpus(setup.calibration, rate_hz), read_corpus(manifest, rate_hz))
    for contract in (NEMO, KV):
        export_checkpoint(checkpoint, case.build, contract)
    for variant in (v for v in setup.variants if v not in EXPORTED):
        progress(f"{case.name}: {variant}")
        build_variant(case.build, variant, setup.calibration, progress=lambda line: None)
    fp32 = context_of(setup, case, FP32, setup.threads)
    for manifests in (setup.further, setup.natural):
        checked = further.check_by_nemo(fp32, further.parts(manifests, fp32))
        progress(f"{case.name}: fp32 emits NeMo's tokens on {checked} of {sum(map(rows_of, manifests))} further utterances")


def context_of(setup: Setup, case: Case, variant: str, threads: int) -> Context:
    """Of a case that was made."""
    checkpoint = read_checkpoint(str(case.checkpoint))
    evaluation = read_corpus(setup.corpus, checkpoint.spec.frontend.sample_rate_hz)
    oracle, like = record_oracle(checkpoint, evaluation, case.build, progress), comparisons(case.build)
    limits = replace(limits_of(like.get(variant, variant)), variant=variant)
    return Context(case.build / variant, limits, checkpoint, evaluation, oracle, threads=threads, progress=progress)


def rows_of(manifest: Path) -> int:
    return len(manifest.read_text().splitlines())


def measured(setup: Setup, one: tuple[Case, str]) -> Row:
    """A variant judged and measured, but for its speed. What fails a gate is shown as failing."""
    case, variant = one
    context, fp32 = context_of(setup, case, variant, setup.threads), context_of(setup, case, FP32, setup.threads)
    results = judged(context, path_of(context, "gates"), [g for g in GATES if g in context.limits.required])
    synthetic, natural = (further.parts(manifests, fp32) for manifests in (setup.further, setup.natural))
    figures = pooled.measure(context, fp32, [*synthetic, *natural], committed=True)
    of_kokoro = pooled.measure(context, fp32, natural, committed=False) if natural else None
    (worst,) = [r.measured for r in results if r.case == "worst minute above NeMo"]
    noise = [r.measured**2 for r in results if r.unit == "rms error / rms"]  # power over power, of each run
    size = sum(f.bytes for f in Manifest.read(context.folder).files.values()) / 1e6
    failed = tuple(sorted({r.gate for r in results if not r.passed}))
    return Row(context.variant, size, -10 * math.log10(sum(noise) / len(noise)), figures, of_kokoro, worst, None, failed)


def speeds(setup: Setup, found: Sequence[Case], rounds: int) -> dict[tuple[str, str], float]:
    """(case, variant) -> times real time of one stream in a process of its own, the runtime's choice of threads; median of
    the rounds, in each of which every variant has its turn."""
    contexts = {(case.name, v): context_of(setup, case, v, 0) for case in found for v in setup.variants}
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in contexts}
    for number in range(rounds):
        progress(f"speed: round {number + 1} of {rounds}")
        for key, context in contexts.items():
            figures = cost.measure(context)
            taken[key].append(figures.audio_seconds / figures.work_seconds)
    return {key: statistics.median(values) for key, values in taken.items()}


def judged(context: Context, path: Path, names: Sequence[str]) -> list[GateResult]:
    """As `judge`, which judges again what failed; here a fail of the same files, audio and code stands. Raises what a gate
    met that could measure nothing."""
    kept, now = read_results(path), context.stamp(GateResult("", context.variant, context.sha256, ""))
    same = all(r.measured is not None and all(getattr(r, name) == getattr(now, name) for name in STAMPS) for r in kept)
    results = kept if same and {r.gate for r in kept} == set(names) else judge(context, path, names)
    for broken in (r for r in results if r.measured is None):
        raise RuntimeError(f"{context.folder}, {broken.gate}: {broken.evidence}")
    return results


def path_of(context: Context, what: str) -> Path:
    return results_path(context.folder.parent / what, context.variant)


def table(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(one.cells() for one in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(tables: dict[str, list[Row]], out: Path) -> None:
    """Bytes against WER with its interval, speed as colour; one panel a checkpoint. out: an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(tables), figsize=(6 * len(tables), 4.5), squeeze=False, layout="constrained")
    for panel, (title, rows) in zip(panels[0], tables.items(), strict=True):
        x, above = [one.megabytes for one in rows], [one.pooled.above for one in rows]
        y = [a.value for a in above]
        bars = [[a.value - a.lower for a in above], [a.upper - a.value for a in above]]
        panel.errorbar(x, y, bars, fmt="none", ecolor="lightgrey", zorder=0)
        times = [float("nan") if one.speed is None else one.speed for one in rows]
        dots = panel.scatter(x, y, c=times, cmap="viridis", plotnonfinite=True)
        for one in rows:
            at = (one.megabytes, one.pooled.above.value)
            panel.annotate(one.variant, at, fontsize=7, xytext=(4, 3), textcoords="offset points")
        panel.set(title=title, xlabel="MB", ylabel="WER points above NeMo (95 %)", yscale="symlog")
        figure.colorbar(dots, ax=panel, label="times real time")
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the table of every variant on plain and hard checkpoints.")
    parser.add_argument("--build", type=Path, required=True, help="a folder for the builds of all checkpoints")
    parser.add_argument("--corpus", type=Path, default=REFERENCE / "audio" / "eval.jsonl")
    parser.add_argument("--calibration", type=Path, default=REFERENCE / "audio" / "calibration.jsonl")
    parser.add_argument("--further", type=int, default=3000, help="utterances of espeak-ng made besides, a multiple of 4")
    parser.add_argument(
        "--natural", type=int, default=3000, help="utterances of Kokoro made besides; used by whole blocks of 400"
    )
    parser.add_argument("--kokoro", type=Path, default=Path("build/kokoro"), help="where these and Kokoro itself are kept")
    parser.add_argument("--only", nargs="+", help="names of checkpoints")
    parser.add_argument("--variants", nargs="+", default=[*EXPORTED, *PACKAGED, *COMPARED])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="variants measured at once; default: the cores")
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed; 0 for none")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("accuracy-tables.md"))
    args = parser.parse_args()
    synthetic: list[Path] = []
    if args.further and more_speech.available():
        synthetic = more_speech.make(args.build / f"further-{args.further}", args.further, 4, args.corpus)
    natural = natural_speech.make(args.kokoro, args.natural, progress)
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    setup = Setup(args.variants, args.corpus, synthetic, natural, args.calibration, threads)
    found = cases(args.build, args.only)
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:  # a fork would inherit the runtimes' threads
        list(pool.map(partial(make, setup), found))
        every = [(case, variant) for case in found for variant in setup.variants]
        rows = dict(zip([(case.name, v) for case, v in every], pool.map(partial(measured, setup), every), strict=True))
    load = f"{os.getloadavg()[0]:.1f} before it, {os.cpu_count()} processors"
    for key, value in speeds(setup, found, args.rounds).items() if args.rounds else ():
        rows[key] = replace(rows[key], speed=value)
    tables = {case.title: [rows[case.name, v] for v in setup.variants] for case in found}
    write(tables, setup, f"Speed: {args.rounds} rounds; load average {load}." if args.rounds else "", args.out)


def write(tables: dict[str, list[Row]], setup: Setup, said: str, out: Path) -> None:
    more, voiced = (sum(map(rows_of, manifests)) for manifests in (setup.further, setup.natural))
    audio = f"{more} further ones at one lookahead each" if more else "no further ones: espeak-ng is not installed"
    audio += f"; {voiced} of Kokoro at one lookahead each" if voiced else "; none of Kokoro"
    sections = [
        f"{instruction_set()}; {setup.corpus.name} at every lookahead and {audio}; calibration {setup.calibration.name}. {said}"
    ]
    for title, rows in tables.items():
        found = [figures for figures in (rows[0].pooled, rows[0].natural) if figures]
        about = "; of Kokoro ".join(f"{f.utterances} utterances, {f.runs} runs, {f.words} words" for f in found)
        about += ". NeMo's own WER is fp32's."
        sections.append(f"## {title}\n\n{about}\n\n{table(rows)}")
    out.write_text("\n\n".join(sections) + "\n")
    plot(tables, out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
