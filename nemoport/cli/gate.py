"""`nemoport gate`: the verdict that a team asks for before its own publish job. Exit code 1: it fails."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nemoport.cli.command import Command, grouped, option
from nemoport.cli.options import CALIBRATION, CHECKPOINT, CORPUS, HEAD, JSON, wanted
from nemoport.cli.registries import all_precisions, targets
from nemoport.cli.validate import AGAINST

PACKAGE = option("--package", type=Path, help="a package or build that is ready, in place of building one; it is not changed")
FLOORS = grouped(
    "figures besides the gates; repeat for several",
    option(
        "--fail-under", action="append", default=[], metavar="FIGURE=NUMBER", help="exact (%% of runs), speed (times real time)"
    ),
    option(
        "--fail-over",
        action="append",
        default=[],
        metavar="FIGURE=NUMBER",
        help="wer (%%, at the worst lookahead), above-nemo (WER points), megabytes, memory (MB)",
    ),
)
FOR_CI = grouped(
    "for CI",
    option("--junit", type=Path, metavar="FILE", help="JUnit XML to write"),
    option("--summary", type=Path, metavar="FILE", help='Markdown to add to, such as "$GITHUB_STEP_SUMMARY"'),
    option("--cache", type=Path, metavar="FOLDER", help="keeps NeMo's runs from one job to the next"),
)


def run(options: argparse.Namespace) -> int:
    from nemoport.pipeline.floors import read_asked
    from nemoport.pipeline.gate import gate
    from nemoport.pipeline.plan import make_plan
    from nemoport.pipeline.release import read_release

    asked = read_asked(options.fail_under, options.fail_over)
    release = read_release(options.against) if options.against else None
    plan = make_plan(options.checkpoint, options.build, None, wanted(options))
    found = gate(plan, options.package, asked, release, options.cache, options.progress)
    if options.junit:
        found.write_junit(options.junit)
    if options.summary:
        found.write_summary(options.summary)
    print(json.dumps(found.to_dict()) if options.json else "\n".join(found.lines()))
    return 0 if found else 1


COMMAND = Command(
    "gate",
    "build or take what is ready, judge it, and write the verdict for CI",
    (
        CHECKPOINT,
        HEAD,
        PACKAGE,
        option("--build", type=Path, help="build folder; default: build/NAME"),
        CORPUS.but(required=False),
        CALIBRATION,
        option("--precisions", metavar="A,B", names=all_precisions, help="%(names)s; default: the usual ones"),
        option("--targets", metavar="A,B", names=targets, help="%(names)s; default: onnx"),
        option("--caches", metavar="A,B", help="nemo, kv; default: both, where the model streams"),
        option("--quick", action="store_true", help="fp32 and int8-weight only, in the fast cache layout"),
        option("--jobs", type=int, default=0, help="variants validated at once; default: by cores and memory"),
        AGAINST,
        JSON,
        *FLOORS,
        *FOR_CI,
    ),
    run,
    examples=(
        "nemoport gate --checkpoint my.nemo --corpus eval.jsonl --calibration calibration.jsonl --fail-under exact=99",
        'nemoport gate --checkpoint my.nemo --package dist/my --junit gate.xml --summary "$GITHUB_STEP_SUMMARY"',
        "nemoport gate --checkpoint my.nemo --corpus eval.jsonl --against me/my-onnx --fail-over wer=12",
    ),
    extras="quantize,validate",
)
