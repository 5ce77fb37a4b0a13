"""`nemoport run`: a checkpoint to a verified package and a report, in one command. Exit code 1: a gate failed."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemoport.cli.command import Command, option
from nemoport.cli.options import CALIBRATION, CHECKPOINT_HELP, CORPUS, HEAD, JSON, WINDOWS, names_in, wanted, window_seconds
from nemoport.cli.package import CARD
from nemoport.cli.registries import all_precisions, layouts, targets
from nemoport.text import columns

if TYPE_CHECKING:
    from nemoport.pipeline.estimate import Estimate
    from nemoport.pipeline.plan import Card, Plan
    from nemoport.pipeline.run import Outcome

LONGEST_LINE = 100  # of a note
REPORTS = ("report.html", "report.md")  # in build/results


def run(options: argparse.Namespace) -> int:
    from nemoport.pipeline.plan import make_plan
    from nemoport.pipeline.run import check_replaceable, run_plan

    card: Card = {
        "licence": options.license,
        "licence_url": options.license_url,
        "licence_holder": options.license_holder,
        "base_model": options.base_model,
        "language": options.language,
    }
    windows_s = window_seconds(options.windows)
    asked = replace(wanted(options), layouts=names_in(options.layouts), windows_s=windows_s, card=card)
    plan = make_plan(options.checkpoint, options.build, options.dist, asked)
    for folder in plan.packages.values():
        check_replaceable(folder, plan.checkpoint.sha256)  # now, not after hours
    if options.dry_run and options.json:
        print(json.dumps(_plan_json(plan)))
        return 0
    if not options.quiet or options.dry_run:
        print(_plan_text(plan), file=sys.stdout if options.dry_run else sys.stderr, flush=True)
    if options.dry_run:
        return 0
    outcome = run_plan(plan, options.progress)
    print(json.dumps(_outcome_json(plan, outcome)) if options.json else _outcome_text(plan, outcome))
    return 0 if outcome.passed else 1


def _plan_text(plan: Plan) -> str:
    checkpoint, speech = plan.checkpoint, plan.speech
    lines = [
        f"{checkpoint.path}: {checkpoint.spec.kind}, {checkpoint.weights_bytes / 1e6:.0f} MB",
        *(
            f"{use}: {corpus.path}, {len(corpus.utterances)} recordings, {_minutes(corpus.seconds)}"
            for use, corpus in (("evaluation", speech.evaluation), ("calibration", speech.calibration))
        ),
        "",
        *columns(
            [
                ("stage", "", "about", "memory", "disk"),
                *((stage, "there" if plan.is_built(stage) else "", *_shown(one)) for stage, one in plan.estimates.items()),
                ("all", "", *_shown(plan.total)),
            ],
            right=True,
        ),
        "Memory of weights; the libraries take 1 to 2 GB besides. Time within a factor of 2.",
        "",
        f"build: {plan.build}",
        *(f"package: {folder} ({layout})" for layout, folder in plan.packages.items()),
        f"gates: every gate of each variant, {plan.jobs} at once" if plan.jobs > 1 else "gates: every gate of each variant",
        *_notes(plan),
        "",
    ]
    return "\n".join(lines)


def _outcome_text(plan: Plan, outcome: Outcome) -> str:
    from nemoport.hub_package import PREFERRED
    from nemoport.pipeline.plan import NATIVE
    from nemoport.validate.report import summary_rows

    lines = ["", *columns(summary_rows(plan.build, list(outcome.verdict.problems)), right=True)]
    lines += ["", *outcome.verdict.lines()]
    lines += [f"no package for {layout}: {why}" for layout, why in outcome.unpackaged.items()]
    lines += _notes(plan)
    lines += ["", *(f"Report:  {report}" for report in [_report(plan)] if report)]
    lines += [f"Package: {folder}" for folder in outcome.packages.values()]
    language = " --language auto" if plan.checkpoint.spec.prompt else ""
    passed = [name for name in PREFERRED if outcome.verdict.problems.get(name) == []]
    where = outcome.packages.get(NATIVE) or (plan.build / passed[0] if passed else None)
    if where:
        lines.append(f"Next:    nemoport transcribe {shlex.quote(str(where))}{language} YOUR.wav")
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1]))


def _notes(plan: Plan) -> list[str]:
    columns = min(shutil.get_terminal_size().columns, LONGEST_LINE)
    return [textwrap.fill(f"note: {note}", columns, subsequent_indent="  ", break_on_hyphens=False) for note in plan.notes]


def _report(plan: Plan) -> Path | None:
    return next((path for name in REPORTS if (path := plan.build / "results" / name).is_file()), None)


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "checkpoint": str(plan.checkpoint.path),
        "kind": plan.checkpoint.spec.kind,
        "evaluation": str(plan.speech.evaluation.path),
        "calibration": str(plan.speech.calibration.path),
        "build": str(plan.build),
        "packages": {layout: str(folder) for layout, folder in plan.packages.items()},
        "jobs": plan.jobs,
        "stages": {
            stage: {"seconds": round(one.seconds), "memory_bytes": round(one.memory), "disk_bytes": round(one.disk)}
            for stage, one in plan.estimates.items()
        },
        "built": [variant.name for variant in plan.variants if plan.is_built(variant.name)],
        "notes": list(plan.notes),
    }


def _outcome_json(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    report = _report(plan)
    return {
        "passed": outcome.passed,
        "variants": outcome.verdict.to_dict(),
        "packages": {layout: str(folder) for layout, folder in outcome.packages.items()},
        "unpackaged": outcome.unpackaged,
        "report": str(report) if report else None,
        "build": str(plan.build),
    }


def _shown(one: Estimate) -> tuple[str, ...]:
    return (_minutes(one.seconds), *(_bytes(size) for size in (one.memory, one.disk)))


def _bytes(size: float) -> str:
    return "" if not size else f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


COMMAND = Command(
    "run",
    "everything, from NeMo's own runs to a verified package and a report",
    (
        option("checkpoint", help=CHECKPOINT_HELP),
        HEAD,
        option("--build", type=Path, help="build folder; default: build/NAME"),
        option("--dist", type=Path, help="package folder; default: dist/NAME"),
        CORPUS.but(required=False),
        CALIBRATION,
        option("--precisions", metavar="A,B", names=all_precisions, help="%(names)s; default: the usual ones"),
        option("--targets", metavar="A,B", names=targets, help="%(names)s; default: onnx"),
        option("--caches", metavar="A,B", help="nemo, kv; default: both, where the model streams"),
        option("--layouts", metavar="A,B", names=layouts, help="%(names)s; default: native, or the target's"),
        WINDOWS,
        option("--quick", action="store_true", help="fp32 and int8-weight only, in the fast cache layout; every gate is run"),
        option("--jobs", type=int, default=0, help="variants validated at once; default: by cores and memory"),
        option("--dry-run", action="store_true", help="print the plan with its time, memory and disk, and do nothing"),
        JSON,
        *CARD,
    ),
    run,
    examples=(
        "nemoport run my.nemo --corpus eval.jsonl --calibration calibration.jsonl --license cc-by-4.0 --license-holder Me",
        "nemoport run nvidia/nemotron-speech-streaming-en-0.6b --quick --dry-run",
        "nemoport run my.nemo --precisions int8-weight,int4-mixed --caches kv --layouts native",
    ),
    extras="quantize,validate",
)
