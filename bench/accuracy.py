"""Every variant on the reference checkpoint and on its hard versions, same audio: writes bench/accuracy.md.

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

from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.quantize import build_variant
from nemoport.reference.outliers import rewrite
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
    for title, checkpoint in cases:
        made = table(checkpoint, args.build / checkpoint.stem, args.corpus, args.calibration)
        sections.append(f"## {title}\n\n{made}")
        args.out.write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
