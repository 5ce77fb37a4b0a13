"""Every variant on the reference checkpoint and on its hard versions, same audio: writes bench/accuracy-tables.md.

    python bench/accuracy.py --build build/accuracy [--further 400] [--only CASE ...] [--threads N]

A hard version is the same function, bit for bit, with outlier channels (nemoport.reference.outliers), so that every
difference between its variants and the plain checkpoint's is the quantizer's doing. What is built only to be compared
(per-tensor dynamic, cold-cache static, ...) stands beside what is packaged. Besides the committed evaluation speech it
hears --further utterances made with espeak-ng (more_speech.py); without espeak-ng the committed ones alone, and says so.
Run again, it goes on where it stopped. --only: reference, hard-0-32 or hard-1-128, to run them beside each other.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import more_speech
import pooled

from nemoport.artifact import Manifest
from nemoport.calibration.corpus import Corpus, check_disjoint, read_corpus
from nemoport.contract import KV, NEMO
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.quantize import build_variant
from nemoport.reference.outliers import rewrite
from nemoport.validate.context import Context
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.result import GateResult
from nemoport.validate.results import read_results, results_path
from nemoport.validate.run import comparisons, judge
from nemoport.variant import instruction_set

REFERENCE = Path(__file__).parent.parent / "reference"
CHECKPOINT = REFERENCE / "checkpoints" / "streaming-en.nemo"
EXPORTED = ("fp32",)
PACKAGED = (
    "fp16", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight", "int4-weight", "int4-mixed",
    "kv-int8-dynamic", "kv-int8-smoothquant", "kv-int8-weight",
)  # fmt: skip
COMPARED = ("int8-dynamic-plain", "int8-dynamic-per-tensor", "int8-static-cold", "int4-weight-nearest")
HARD = ((0, 32, 0.02), (1, 128, 0.01))  # seed, strength, share of the channels
STAMPS = ("variant", "sha256", "limits_sha256", "oracle_digest", "judge_digest")
GATES = ("longform", "numeric", "structure", "tokens", "wer")  # `nemoport validate` runs all


@dataclass(frozen=True)
class Setup:
    """What all checkpoints have in common. corpus, further, calibration: manifests; threads: 0 for the runtime's choice."""

    variants: Sequence[str]
    corpus: Path
    further: Sequence[Path]
    calibration: Path
    threads: int
    speed: bool


@dataclass(frozen=True)
class Row:
    """What the table says of a variant. snr_db: of the encoder's frames against NeMo's; speed: times real time, None if
    it was not measured; failed: gates that reject it."""

    variant: str
    megabytes: float
    snr_db: float
    pooled: pooled.Pooled
    worst_minute: float
    speed: float | None
    failed: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        above = self.pooled.above
        return (
            self.variant,
            ", ".join(self.failed) or "none",
            f"{self.megabytes:.1f}",
            f"{self.snr_db:.1f}",
            f"{self.pooled.wer:.2f}",
            f"{above.value:+.2f} ({above.lower:+.2f} to {above.upper:+.2f})",
            f"{100 * self.pooled.tokens_other:.2f} %",
            f"{self.worst_minute:+.1f}",
            "-" if self.speed is None else f"{self.speed:.0f}",
        )


HEAD = ("variant", "rejected by", "MB", "dB", "WER", "points above NeMo (95 %)", "tokens other", "worst minute", "x real time")


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def cases(build: Path) -> dict[str, tuple[str, Path]]:
    """Name -> (title, checkpoint), made where it is not there."""
    found = {"reference": ("The reference checkpoint", CHECKPOINT)}
    for seed, strength, share in HARD:
        hard = build / f"hard-{seed}-{strength}.nemo"
        if not hard.is_file():
            rewrite(CHECKPOINT, hard, seed, strength, share)
        found[hard.stem] = (f"Outliers of {strength} times in {share:.0%} of the channels, seed {seed}", hard)
    return found


def rows_of(checkpoint: Path, build: Path, setup: Setup) -> list[Row]:
    """Builds, judges and measures variants. What fails a gate is shown as failing."""
    read = read_checkpoint(str(checkpoint))
    rate_hz = read.spec.frontend.sample_rate_hz
    evaluation, more = read_corpus(setup.corpus, rate_hz), [read_corpus(part, rate_hz) for part in setup.further]
    for one in (evaluation, *more):
        check_disjoint(read_corpus(setup.calibration, rate_hz), one)
    for contract in (NEMO, KV):
        export_checkpoint(read, build, contract)
    for variant in (v for v in setup.variants if v not in EXPORTED):
        progress(f"{build.name}: {variant}")
        build_variant(build, variant, setup.calibration, progress=lambda line: None)
    oracle, like = record_oracle(read, evaluation, build, progress), comparisons(build)

    def context(variant: str) -> Context:
        limits = replace(limits_of(like.get(variant, variant)), variant=variant)
        return Context(build / variant, limits, read, evaluation, oracle, threads=setup.threads, progress=progress)

    measured = {variant: heard(context(variant), more) for variant in setup.variants}
    # Last, one after another: speed is of a machine that does nothing else of this.
    return [row(context(variant), *measured[variant], setup.speed) for variant in setup.variants]


def heard(context: Context, further: Sequence[Corpus]) -> tuple[list[GateResult], pooled.Pooled]:
    results = judged(context, path_of(context, "gates"), [g for g in GATES if g in context.limits.required])
    return results, pooled.measure_once(context, further, path_of(context, "pooled").with_suffix(".json"))


def judged(context: Context, path: Path, names: Sequence[str]) -> list[GateResult]:
    """As `judge`, which judges again what failed; here a fail of the same files, audio and code stands."""
    kept, now = read_results(path), context.stamp(GateResult("", context.variant, context.sha256, ""))
    same = all(getattr(result, name) == getattr(now, name) for name in STAMPS for result in kept)
    return kept if same and {r.gate for r in kept} == set(names) else judge(context, path, names)


def row(context: Context, results: list[GateResult], figures: pooled.Pooled, speed: bool) -> Row:
    cost = {r.case: r for r in judged(context, path_of(context, "cost"), ["cost"])} if speed else {}
    (worst,) = [r.measured for r in results if r.case == "worst minute above NeMo"]
    failed = tuple(sorted({r.gate for r in [*results, *cost.values()] if not r.passed}))
    noise = [r.measured**2 for r in results if r.unit == "rms error / rms"]  # power over power, of each run
    size = sum(f.bytes for f in Manifest.read(context.folder).files.values()) / 1e6
    times = cost["speed"].measured if speed else None
    return Row(context.variant, size, -10 * math.log10(sum(noise) / len(noise)), figures, worst, times, failed)


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
    parser.add_argument("--further", type=int, default=400, help="utterances made besides, a multiple of 4")
    parser.add_argument("--only", nargs="+", help="names of checkpoints")
    parser.add_argument("--variants", nargs="+", default=[*EXPORTED, *PACKAGED, *COMPARED])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--without-speed", action="store_true", help="where the machine has other things to do")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("accuracy-tables.md"))
    args = parser.parse_args()
    further: list[Path] = []
    if args.further and more_speech.available():
        further = more_speech.make(args.build / "further", args.further, 4, args.corpus)
    setup = Setup(args.variants, args.corpus, further, args.calibration, args.threads, not args.without_speed)
    audio = f"{args.further} further ones at one lookahead each" if further else "no further ones: espeak-ng is not installed"
    sections = [f"{instruction_set()}; {args.corpus.name} at every lookahead and {audio}; calibration {args.calibration.name}."]
    tables = {}
    for name, (title, checkpoint) in cases(args.build).items():
        if args.only and name not in args.only:
            continue
        tables[title] = rows_of(checkpoint, args.build / name, setup)
        figures = tables[title][0].pooled
        said = f"{figures.utterances} utterances, {figures.runs} runs, {figures.words} words; NeMo's own WER is fp32's."
        if setup.speed:
            load = f"{os.getloadavg()[2]:.1f}, {os.cpu_count()} processors"
            said += f" Load average of the last 15 minutes: {load}; the speeds of a busy machine tell little."
        sections.append(f"## {title}\n\n{said}\n\n{table(tables[title])}")
        args.out.write_text("\n\n".join(sections) + "\n")
        plot(tables, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
