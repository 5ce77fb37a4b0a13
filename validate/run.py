"""Holds the variants of a build to their gates; results of unchanged inputs are kept from run to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nemoport.calibration.corpus import check_disjoint, read_corpus
from nemoport.errors import ArtifactError, NemoportError
from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.validate import gates
from nemoport.validate.baseline import record_baseline
from nemoport.validate.context import Context
from nemoport.validate.limits import Limits, limits_of, read_limits
from nemoport.validate.oracle import record_oracle
from nemoport.validate.report import table, write_reports
from nemoport.validate.result import GateResult
from nemoport.validate.results import read_results, required_passes, results_path, write_results

BESIDE = ("numeric", "tokens", "wer", "longform")  # gates that tell how good an artifact is


def validate(
    checkpoint: Checkpoint | str | Path,
    build: Path,
    corpus: Path,
    variants: Sequence[str] | None = None,
    calibration: Path | None = None,
    *,
    provider: str = "cpu",
    threads: int = 0,
    baseline: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> bool:
    """Whether every variant (default: all that are built) passes every gate that it must.

    Writes build/results/: <variant>.jsonl, junit.xml, report.md. By default also what is built for comparison, into
    extra-<name>.jsonl, which does not count for the verdict. `calibration`: the manifest that variants were
    calibrated on, which must share no recording with `corpus`. `baseline`: measure NeMo's own export beside them.
    Raises NemoportError kinds for unusable input; a variant that is asked for and not there is a fail.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(str(checkpoint))
    rate_hz = checkpoint.spec.frontend.sample_rate_hz
    evaluation = read_corpus(corpus, rate_hz)
    if calibration is not None:
        check_disjoint(read_corpus(calibration, rate_hz), evaluation)
    limits = [limits_of(variant) for variant in variants or built(build)]
    oracle = record_oracle(checkpoint, evaluation, build, progress)
    streaming = checkpoint.spec.streaming  # what it measures is NeMo's cache-aware export, which has no profiles
    baseline = baseline and streaming is not None and streaming.attention_lookahead is None
    baselines = record_baseline(checkpoint, evaluation, oracle, build, progress, threads) if baseline else []

    def context(one: Limits) -> Context:
        return Context(
            build / one.variant, one, checkpoint, evaluation, oracle, provider, threads, progress
        )

    for one in limits:
        judge(context(one), results_path(build, one.variant))
    beside = {} if variants else comparisons(build)
    for name, like in beside.items():
        judge(context(replace(limits_of(like), variant=name)), results_path(build, f"extra-{name}"), BESIDE)
    write_reports(build, baselines)
    problems = {one.variant: required_passes(build, one.variant) for one in limits}
    progress(table(build, [*problems, *(f"extra-{name}" for name in beside)]))
    for variant, found in problems.items():
        for problem in found:
            progress(f"{variant}: {problem}")
    return not any(problems.values())


def judge(context: Context, path: Path, names: Sequence[str] | None = None) -> list[GateResult]:
    """Runs each required gate (or `names`) that has no pass from the same artifact, oracle, limits and code.

    `path` holds all results, as soon as each gate has ended.
    """
    kept = _reusable(context, path)
    results: list[GateResult] = []
    for gate in sorted(names or context.limits.required):
        if gate in kept:
            context.progress(f"{context.variant}: {gate}: unchanged, passed before")
            results += kept[gate]
        else:
            found = gates.run_gate(gate, context)
            failed = sum(not result.passed for result in found)
            verdict = f"{failed} of {len(found)} figures fail" if failed else "pass"
            context.progress(f"{context.variant}: {gate}: {verdict}")
            results += found
        write_results(path, results + [r for later, rs in kept.items() if later > gate for r in rs])
    return results


def built(build: Path) -> list[str]:
    """Variants that stand in the build, in the order of gates.toml. Raises ArtifactError if there is none."""
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
    """Artifacts that are built only to be compared: name -> the variant whose limits they are shown against.

    They have no block in gates.toml; int8-static-cold, say, is shown beside int8-static and never packaged.
    """
    known = sorted(read_limits(), key=len)
    found = sorted(path.parent.name for path in build.glob("*/manifest.json"))
    like = {name: [k for k in known if name.startswith(f"{k}-")] for name in found if name not in known}
    return {name: near[-1] for name, near in like.items() if near}


def _reusable(context: Context, path: Path) -> dict[str, list[GateResult]]:
    """gate -> results of which all passed, with everything as it is now."""
    try:
        sha256, results = context.sha256, read_results(path)
    except NemoportError:  # no artifact, or results of another version: judge anew
        return {}
    now = context.stamp(GateResult("", context.variant, sha256, ""))
    stamps = ("variant", "sha256", "limits_sha256", "oracle_digest", "judge_digest")
    kept: dict[str, list[GateResult]] = {}
    for result in results:
        kept.setdefault(result.gate, []).append(result)
    return {
        gate: found
        for gate, found in kept.items()
        if all(r.passed and all(getattr(r, s) == getattr(now, s) for s in stamps) for r in found)
    }
