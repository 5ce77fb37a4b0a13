"""Runs the gates of a build's variants; passes of unchanged inputs are kept from run to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError, NemoportError
from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.files import sweep_leftovers
from nemoport.progress import Progress, Step, silent, step
from nemoport.resources import Needs, check_free
from nemoport.speech.corpus import Corpus, check_disjoint, check_each_once, print_repeats, read_corpus
from nemoport.validate import gates
from nemoport.validate.baseline import record_baseline
from nemoport.validate.context import Context
from nemoport.validate.details import write_details
from nemoport.validate.gate_result import STAMPS, GateResult
from nemoport.validate.limits import Limits, limits_of, read_limits
from nemoport.validate.oracle import record_oracle
from nemoport.validate.page.page import write_page
from nemoport.validate.report import write_reports
from nemoport.validate.result_store import read_results, required_passes, results_path, write_results
from nemoport.validate.stamps import write_evaluation
from nemoport.validate.workers import map_in_processes, report

COST = "cost"
ACCURACY_GATES = ("numeric", "tokens", "wer", "longform")  # gates that measure how near to NeMo an artifact is


@dataclass(frozen=True)
class Verdict:
    """problems: variant -> why it may not be published, empty where it passed all gates that it must. extras: names of results of
    artifacts that were judged for comparison only."""

    problems: dict[str, list[str]]
    extras: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not any(self.problems.values())

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Variant -> whether it passed, and its problems; in JSON's types."""
        return {variant: {"passed": not found, "problems": found} for variant, found in self.problems.items()}

    def lines(self) -> list[str]:
        """A line for each problem."""
        return [f"{variant}: {problem}" for variant, found in self.problems.items() for problem in found]


def validate(
    checkpoint: Checkpoint | str | Path,
    build: Path,
    corpus: Corpus | Path,
    variants: Sequence[str] | None = None,
    calibration: Corpus | Path | None = None,
    *,
    provider: str = "cpu",
    threads: int = 0,
    jobs: int = 1,
    baseline: bool = True,
    progress: Progress = silent,
) -> Verdict:
    """Validates variants (default: all that are built); the verdict is true if each passes all gates that it must.

    Writes build/results/: <variant>.jsonl, details/, junit.xml, report.md, report.html. By default artifacts that are built
    only for comparison are judged too, into extra-<name>.jsonl, which does not count for the verdict. corpus: read
    already, or the place of one. calibration: the same, of what variants were calibrated on, which must share no audio with
    `corpus`. baseline: measure NeMo's own export too. jobs: variants that are judged at once, each in a process of its own
    with its share of the threads; the gate `cost` is run after all others, alone. threads: intra-op threads, 0 for the
    runtime's choice. Raises NemoportError kinds for unusable input; a variant that is named and not there is a fail.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(str(checkpoint))
    sweep_leftovers(build)
    rate_hz = checkpoint.spec.frontend.sample_rate_hz
    evaluation = _corpus(corpus, rate_hz)
    check_each_once(evaluation)
    print_repeats(evaluation, progress)
    if calibration is not None:
        check_disjoint(_corpus(calibration, rate_hz), evaluation)
    limits = [limits_of(variant) for variant in variants or built(build)]
    files = [file for one in limits for file in (build / one.variant).rglob("*") if file.is_file()]
    largest = max((file.stat().st_size for file in files), default=0)  # a session holds as much as its file of weights
    check_free("validate", largest, Needs(memory=min(jobs, len(limits)), held=1.0), build, progress)
    oracle = record_oracle(checkpoint, evaluation, build, progress)
    write_evaluation(build, oracle.digest, {one.variant: provider for one in limits})
    streaming = checkpoint.spec.streaming  # the baseline is NeMo's cache-aware export, which has no profiles
    baseline = baseline and streaming is not None and streaming.attention_lookahead is None
    baselines = record_baseline(checkpoint, evaluation, oracle, build, progress, threads) if baseline else []

    def context(one: Limits, threads: int, progress: Progress) -> Context:
        return Context(build / one.variant, one, checkpoint, evaluation, oracle, provider, threads, progress)

    extras = {} if variants else comparisons(build)
    shared = threads or (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else 0)
    reported = report if jobs > 1 else progress
    tasks = [(context(one, shared, reported), results_path(build, one.variant), _but_cost(one)) for one in limits]
    tasks += [
        (context(replace(limits_of(like), variant=name), shared, reported), results_path(build, f"extra-{name}"), ACCURACY_GATES)
        for name, like in extras.items()
    ]
    judged = _judge_all(tasks, jobs, progress)
    for one, found in zip(limits, judged, strict=False):
        if COST in one.required:
            judge(context(one, threads, progress), results_path(build, one.variant), [COST], found)
    write_reports(build, baselines)
    with step("writing report.html", progress):
        write_page(build)
    problems = {one.variant: required_passes(build, one.variant) for one in limits}
    return Verdict(problems, tuple(f"extra-{name}" for name in extras))


def _corpus(given: Corpus | Path, rate_hz: int) -> Corpus:
    return given if isinstance(given, Corpus) else read_corpus(given, rate_hz)


def _but_cost(limits: Limits) -> list[str]:
    return [gate for gate in limits.required if gate != COST]


def _judge_all(tasks: Sequence[tuple[Context, Path, Sequence[str]]], jobs: int, progress: Progress) -> list[list[GateResult]]:
    if jobs == 1:
        return [judge(*task) for task in tasks]
    return map_in_processes(_judge_task, tasks, jobs, progress)


def _judge_task(task: tuple[Context, Path, Sequence[str]]) -> list[GateResult]:
    return judge(*task)


def judge(
    context: Context, path: Path, names: Sequence[str] | None = None, standing: Sequence[GateResult] = ()
) -> list[GateResult]:
    """Runs each required gate (or those in `names`) that has no pass with the same artifact, oracle, limits and code.

    Returns the results of these gates. All results are written to `path` when a gate has ended, together with `standing`,
    results of other gates.
    """
    kept = _reusable(context, path)
    asked = sorted(names or context.limits.required)
    results: list[GateResult] = []
    for number, gate in enumerate(asked):
        context.progress(Step(f"{context.variant}: validating", number, len(asked), "gates"))
        if gate in kept:
            context.progress(f"{context.variant}: {gate}: unchanged, passed before")
            results += kept[gate]
        else:
            found = gates.run_gate(gate, context)
            if gate in context.details:
                write_details(path, found, context.details.pop(gate))
            failed = sum(not result.passed for result in found)
            verdict = f"{failed} of {len(found)} figures fail" if failed else "pass"
            context.progress(f"{context.variant}: {gate}: {verdict}")
            results += found
        left = [r for other, rs in kept.items() if other > gate or other not in asked for r in rs]
        done = {r.gate for r in [*results, *left]}
        write_results(path, sorted([*results, *left, *(r for r in standing if r.gate not in done)], key=lambda r: r.gate))
    context.progress(Step(f"{context.variant}: validating", len(asked), len(asked), "gates"))
    return results


def built(build: Path) -> list[str]:
    """Variants in the build folder, in the order of gates.toml. Raises ArtifactError if there is none."""
    found = [variant for variant in read_limits() if (build / variant / "manifest.json").is_file()]
    if not found:
        raise ArtifactError(
            f"There is nothing to validate in {build}.",
            expected=f"one or more of {', '.join(read_limits())}",
            found="none of them",
            todo="run `nemoport export` first",
        )
    return found


def comparisons(build: Path) -> dict[str, str]:
    """Artifacts that are built only to be compared: name -> the variant whose limits they are judged by.

    They have no block in gates.toml. An example is int8-static-cold, which is judged by the limits of int8-static and never
    packaged.
    """
    known = sorted(read_limits(), key=len)
    found = sorted(path.parent.name for path in build.glob("*/manifest.json"))
    like = {name: [k for k in known if name.startswith(f"{k}-")] for name in found if name not in known}
    return {name: near[-1] for name, near in like.items() if near}


def _reusable(context: Context, path: Path) -> dict[str, list[GateResult]]:
    """Results that need no new run: gate -> its results, where all passed with the artifact, limits, oracle and code of now."""
    try:
        sha256, results = context.sha256, read_results(path)
    except NemoportError:  # no artifact, or results of another version: judge anew
        return {}
    now = context.stamp(GateResult("", context.variant, sha256, ""))
    kept: dict[str, list[GateResult]] = {}
    for result in results:
        kept.setdefault(result.gate, []).append(result)
    return {
        gate: found
        for gate, found in kept.items()
        if all(r.passed and all(getattr(r, s) == getattr(now, s) for s in STAMPS) for r in found)
    }
