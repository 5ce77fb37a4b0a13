"""The gate that a team puts before its publish job: builds or takes what is ready, judges it, writes the verdict for CI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemoport import markdown
from nemoport.errors import OutputError
from nemoport.files import write_bytes
from nemoport.pipeline.floors import Asked
from nemoport.pipeline.plan import Plan
from nemoport.pipeline.ready import judge_ready
from nemoport.pipeline.release import Release, against_release
from nemoport.pipeline.run import run_plan
from nemoport.progress import Progress
from nemoport.validate.gate_result import FAIL, PASS, GateResult
from nemoport.validate.report import junit, summary_rows
from nemoport.validate.result_store import describe, read_results, results_path

VERDICT = "verdict"  # the name under which it is reported that a variant may be published
MOST_LISTED = 200  # failures in a summary: the page of a job takes a megabyte


@dataclass(frozen=True)
class Gated:
    """What the gate found. build: where the results are; results: variant -> its verdict, figures of the gates, of what was asked
    for and of the release."""

    build: Path
    results: dict[str, list[GateResult]]

    def __bool__(self) -> bool:
        return bool(self.results) and not self.failures()

    def failures(self) -> list[GateResult]:
        """Returns what fails; that a variant may not be published only where no figure shows why."""
        failed = [[result for result in found if not result.passed] for found in self.results.values()]
        return [result for found in failed for result in found if result.gate != VERDICT or len(found) == 1]

    def lines(self) -> list[str]:
        """A line for each figure that fails, and the verdict."""
        lines = [f"{result.variant}: {result.gate}: {describe(result)}" for result in self.failures()]
        return [*lines, f"Verdict: {'pass' if self else 'FAIL'}"]

    def to_dict(self) -> dict[str, Any]:
        failures = self.failures()
        variants = {
            variant: {
                "passed": all(one.passed for one in found),
                "failures": [describe(one) for one in failures if one.variant == variant],
            }
            for variant, found in self.results.items()
        }
        return {"passed": bool(self), "variants": variants, "results": str(self.build / "results")}

    def write_junit(self, path: Path) -> None:
        """Writes JUnit XML: a suite for each variant, a case for each figure. Raises OutputError."""
        write_bytes(path, junit(self.results))

    def write_summary(self, path: Path) -> None:
        """Adds the summary for the page of a job to a file, as GITHUB_STEP_SUMMARY has to be written. Raises OutputError."""
        try:
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(self.summary())
        except OSError as error:
            raise OutputError(f"{path} cannot be written.", expected="a file", found=str(error), todo="name another") from error

    def summary(self) -> str:
        """Returns Markdown: the verdict, a row for each variant, and what fails."""
        failed = self.failures()
        head, *rows = summary_rows(self.build, list(self.results))
        passed = ["pass" if all(one.passed for one in found) else "FAIL" for found in self.results.values()]
        table = markdown.table((*head, "verdict"), [(*row, mark) for row, mark in zip(rows, passed, strict=True)])
        text = [f"## nemoport gate: {'pass' if self else 'FAIL'}", "", table, ""]
        if failed:
            shown = [f"- `{one.variant}`, {one.gate}: {_plain(describe(one))}" for one in failed[:MOST_LISTED]]
            more = [f"- and {len(failed) - MOST_LISTED} more"] if len(failed) > MOST_LISTED else []
            text += ["### What fails", "", *shown, *more, ""]
        return "\n".join(text) + "\n"


def _plain(text: str) -> str:
    """A text of a file in a line of Markdown, in which it marks nothing up."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c if c.isprintable() else " " for c in text)


def gate(
    plan: Plan, ready: Path | None, asked: Sequence[Asked], release: Release | None, cache: Path | None, progress: Progress
) -> Gated:
    """Judges what the plan builds, or the variants of `ready`.

    ready: a package or a build of the plan's checkpoint, which is copied and not changed. asked: figures besides the gates;
    release: the last published package. cache: a folder that keeps NeMo's runs, by digests of all that they depend on, from one
    build to the next. Raises as `run_plan`, `validate` and `against_release`.
    """
    if ready is not None:
        plan = replace(plan, build=plan.build.with_name(f"{plan.build.name}-ready"))
    if cache is not None:
        _use_cache(plan.build, cache)
    verdict = run_plan(replace(plan, packages={}), progress).verdict if ready is None else judge_ready(plan, ready, progress)
    results = {variant: [_of_verdict(variant, problems)] for variant, problems in verdict.problems.items()}
    for variant, found in results.items():
        figures = read_results(results_path(plan.build, variant))
        found += [*figures, *(one.judge(variant, figures) for one in asked)]
    if release is not None:
        names = [variant for variant, found in verdict.problems.items() if not found] or list(verdict.problems)
        compared = against_release(plan.checkpoint, plan.build, plan.speech.evaluation.path, release, names, progress)
        for variant, found in compared.items():
            results.setdefault(variant, []).extend(found)
    return Gated(plan.build, results)


def _of_verdict(variant: str, problems: Sequence[str]) -> GateResult:
    return GateResult(VERDICT, variant, "", FAIL if problems else PASS, evidence="; ".join(problems))


def _use_cache(build: Path, cache: Path) -> None:
    """Makes the build keep NeMo's runs in the cache. Raises OutputError."""
    place, kept = build / "oracle", cache.resolve() / "oracle"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        build.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() or not place.exists():
            place.unlink(missing_ok=True)
            place.symlink_to(kept, target_is_directory=True)
    except OSError as error:
        raise OutputError(f"{cache} cannot be used.", expected="a folder", found=str(error), todo="name another") from error
