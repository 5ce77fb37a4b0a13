"""Every variant on the reference checkpoint and on its hard versions, same audio: writes bench/accuracy-tables.md.

    python bench/accuracy.py --build build/accuracy [--corpus MANIFEST] [--calibration MANIFEST]

A hard version is the same function, bit for bit, with outlier channels (nemoport.reference.outliers), so that every
difference between its variants and the plain checkpoint's is the quantizer's doing. What is built only to be compared
(per-tensor dynamic, cold-cache static, ...) stands beside what is packaged. Takes about half an hour on two quiet cores;
run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemoport.artifact import Manifest
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.quantize import build_variant
from nemoport.reference.outliers import rewrite
from nemoport.validate.results import read_results
from nemoport.validate.run import validate
from nemoport.variant import instruction_set

REFERENCE = Path(__file__).parent.parent / "reference"
PACKAGED = (
    "fp16", "int8-dynamic", "int8-static", "int8-smoothquant", "int8-weight", "int4-weight", "int4-mixed",
)  # fmt: skip
COMPARED = ("int8-dynamic-plain", "int8-dynamic-per-tensor", "int8-static-cold", "int4-weight-nearest")
HARD = ((0, 32, 0.02), (1, 128, 0.01))  # seed, strength, share of the channels


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(checkpoint: Path, build: Path, corpus: Path, calibration: Path) -> str:
    """Builds and judges every variant; the report's table. What fails a gate is shown as failing."""
    read = read_checkpoint(str(checkpoint))
    export_checkpoint(read, build)
    for variant in (*PACKAGED, *COMPARED):
        progress(f"{build.name}: {variant}")
        build_variant(build, variant, calibration, progress=lambda line: None)
    validate(read, build, corpus, calibration=calibration, baseline=False, progress=progress)
    return (build / "results" / "report.md").read_text().split("\n\n")[1]


def plot(builds: dict[str, Path], out: Path) -> None:
    """Bytes against WER with its interval, speed as colour; one panel a checkpoint. out: an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(builds), figsize=(6 * len(builds), 4.5), squeeze=False, layout="constrained")
    for panel, (title, build) in zip(panels[0], builds.items(), strict=True):
        points = []
        for path in sorted((build / "results").glob("*.jsonl")):
            found = {(r.gate, r.case): r for r in read_results(path)}
            above = found.get(("wer", "all lookaheads: difference"))
            name = path.stem.removeprefix("extra-")
            megabytes = sum(f.bytes for f in Manifest.read(build / name).files.values()) / 1e6
            speed = found.get(("cost", "speed"))
            if above is not None:
                points.append((megabytes, above, name, speed.measured if speed else float("nan")))
        x, y = [p[0] for p in points], [p[1].measured for p in points]
        bars = [[v - p[1].interval[0] for v, p in zip(y, points, strict=True)],
                [p[1].interval[1] - v for v, p in zip(y, points, strict=True)]]  # fmt: skip
        panel.errorbar(x, y, bars, fmt="none", ecolor="lightgrey", zorder=0)
        dots = panel.scatter(x, y, c=[p[3] for p in points], cmap="viridis", plotnonfinite=True)
        for megabytes, above, name, _ in points:
            panel.annotate(name, (megabytes, above.measured), fontsize=7, xytext=(4, 3), textcoords="offset points")
        panel.set(title=title, xlabel="MB", ylabel="WER points above NeMo (95 %)", yscale="symlog")
        figure.colorbar(dots, ax=panel, label="times real time")
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the table of every variant on plain and hard checkpoints.")
    parser.add_argument("--checkpoint", type=Path, default=REFERENCE / "checkpoints" / "streaming-en.nemo")
    parser.add_argument("--build", type=Path, required=True, help="a folder for the builds of all checkpoints")
    parser.add_argument("--corpus", type=Path, default=REFERENCE / "audio" / "eval.jsonl")
    parser.add_argument("--calibration", type=Path, default=REFERENCE / "audio" / "calibration.jsonl")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("accuracy-tables.md"))
    args = parser.parse_args()
    sections = [f"{instruction_set()}; evaluation {args.corpus.name}, calibration {args.calibration.name}."]
    cases = [("The reference checkpoint", args.checkpoint)]
    for seed, strength, share in HARD:
        hard = args.build / f"hard-{seed}-{strength}.nemo"
        if not hard.is_file():
            rewrite(args.checkpoint, hard, seed, strength, share)
        cases.append((f"Outliers of {strength} times in {share:.0%} of the channels, seed {seed}", hard))
    builds = {}
    for title, checkpoint in cases:
        builds[title] = args.build / checkpoint.stem
        made = table(checkpoint, args.build / checkpoint.stem, args.corpus, args.calibration)
        sections.append(f"## {title}\n\n{made}")
        args.out.write_text("\n\n".join(sections) + "\n")
        plot(builds, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
