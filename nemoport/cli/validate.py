"""`nemoport validate`: variants against their gates, on a manifest or a data set. Exit code 1: a gate failed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.cli.command import Command, grouped, option
from nemoport.cli.options import BUILD, CALIBRATION, CHOSEN, CORPUS, JSON, VARIANTS, chosen
from nemoport.errors import UsageError

if TYPE_CHECKING:
    from nemoport.spec import ModelSpec

AGAINST = option(
    "--against",
    metavar="RELEASE",
    help="the last published package, a folder or ORG/NAME of the Hub: fail on a regression from it",
)
JOBS = option("--jobs", type=int, default=1, help="variants validated at once, each in a process with its share of the cores")
DATASET = grouped(
    "a data set in place of --corpus",
    option("--dataset", help="in place of --corpus: a data set of the Hub such as google/fleurs, or a folder like one"),
    option("--languages", default="", help="its configurations, such as en_us,de_de"),
    option("--split", default="test", help="default: %(default)s"),
    option("--limit", type=int, help="so many recordings of each language"),
    option("--shard", metavar="I/N", help="every N-th of them, from the I-th on"),
    option("--dataset-revision", help="of the data set"),
)


def run(options: argparse.Namespace) -> int:
    if bool(options.corpus) == bool(options.dataset):
        raise UsageError(
            "One evaluation set is needed.",
            expected="either --corpus or --dataset",
            found="both" if options.corpus else "neither",
            todo="give one of them",
        )
    from nemoport.pipeline.release import against_release, read_release
    from nemoport.validate.report import table
    from nemoport.validate.result_store import describe
    from nemoport.validate.run import validate

    release = read_release(options.against) if options.against else None  # now, not after hours
    checkpoint = chosen(options)
    corpus = options.corpus or _manifest(options, checkpoint.spec)
    verdict = validate(
        checkpoint,
        options.build,
        corpus,
        options.variants,
        options.calibration,
        jobs=options.jobs,
        progress=options.progress,
    )
    compared = {}
    if release is not None:
        compared = against_release(checkpoint, options.build, corpus, release, list(verdict.problems), options.progress)
    figures = [result for found in compared.values() for result in found]
    passed = bool(verdict) and all(result.passed for result in figures)
    if options.json:
        said = {"passed": passed, "variants": verdict.to_dict(), "results": str(options.build / "results")}
        print(json.dumps(said | ({"against": [result.to_dict() for result in figures]} if release else {})))
    else:
        lines = [f"{r.variant}: {r.status}: {describe(r)}" for r in figures]
        print("\n".join([table(options.build, [*verdict.problems, *verdict.extras]), *verdict.lines(), *lines]))
    return 0 if passed else 1


def _manifest(options: argparse.Namespace, spec: ModelSpec) -> Path:
    """Returns the manifest of the data set, fetched into the build folder."""
    from nemoport.speech.dataset import Part, dataset_manifest

    return dataset_manifest(
        options.dataset,
        [language for language in options.languages.split(",") if language],
        options.build / "datasets",
        spec,
        options.split,
        Part.parse(options.limit, options.shard),
        options.dataset_revision,
        options.progress,
    )


COMMAND = Command(
    "validate",
    "hold variants to the gates",
    (
        *CHOSEN,
        BUILD,
        CORPUS.but(required=False),
        CALIBRATION,
        VARIANTS,
        JOBS,
        AGAINST,
        JSON,
        *DATASET,
    ),
    run,
    examples=(
        "nemoport validate --checkpoint my.nemo --build build/my --corpus eval.jsonl --jobs 2",
        "nemoport validate --checkpoint my.nemo --build build/my --dataset google/fleurs --languages en_us --limit 50",
    ),
    extras="validate",
)
