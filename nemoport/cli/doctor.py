"""`nemoport doctor`: what is wrong with anybody's package of ONNX graphs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from nemoport.cli.command import Command, option
from nemoport.cli.options import JSON
from nemoport.cli.registries import consumers
from nemoport.text import printable

if TYPE_CHECKING:
    from nemoport.package.doctor.check import Report


def run(options: argparse.Namespace) -> int:
    from nemoport.package.doctor.examine import examine

    report = examine(options.path, options.consumer, static=options.static, progress=options.progress)
    print(json.dumps(asdict(report)) if options.json else printable("\n".join(_lines(report))))
    return report.exit_code


def _lines(report: Report) -> Iterator[str]:
    for model in report.models:
        others = ", ".join(f"{part} {path}" for part, path in model.parts.items() if path != model.graph)
        how = "run on noise" if model.ran else "not run"
        yield f"{model.graph}: {model.kind or 'of no kind that is known'}, {how}{f'; {others}' if others else ''}"
    for one in report.findings:
        yield ""
        yield f"{one.severity}: {one.title} ({one.check})"
        rows = {"file": one.file, "expected": one.expected, "found": one.found, "why": one.why, "do": one.todo}
        yield from (f"  {name:8}  {text}" for name, text in rows.items())
        yield from (f"  {'report':8}  {address}" for address in one.reports)
    counts = [f"{sum(one.severity == kind for one in report.findings)} {kind}s" for kind in ("error", "warning", "note")]
    yield ""
    yield f"{report.path}: {', '.join(counts)}" if report.findings else f"{report.path}: nothing found"


COMMAND = Command(
    "doctor",
    "find what loses words in anybody's package of ONNX graphs (exit code 1: something)",
    (
        option("path", help="folder with the graphs, or Hub id org/name[@revision]"),
        option("--consumer", names=consumers, default="", help="hold it against a program: %(names)s"),
        option("--static", action="store_true", help="do not run the graphs"),
        JSON,
    ),
    run,
    examples=("nemoport doctor downloads/model", "nemoport doctor dist/my --consumer sherpa-onnx --json"),
    extras="quantize",
)
