"""Reads and writes gate results, one a line in `build/results/<variant>.jsonl`, and decides whether they allow publishing."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from nemoport.errors import ArtifactError, NemoportError
from nemoport.files import write_bytes
from nemoport.text import lines
from nemoport.validate.gate_result import GateResult, artifact_sha256
from nemoport.validate.limits import limits_digest, limits_of
from nemoport.validate.stamps import judge_digest, read_evaluation


def required_passes(build: Path, variant: str) -> list[str]:
    """Problems that keep a variant from being published: required gates without a pass on the files as they are now, by the
    limits and the code of now, on the corpus that the build was last validated on.

    Empty if there are none. Raises UsageError for a variant without limits in gates.toml.
    """
    limits = limits_of(variant)
    try:
        results, sha256 = read_results(results_path(build, variant)), artifact_sha256(build / variant)
        if not results:
            return [f"no gate results in {results_path(build, variant)}: run `nemoport validate`"]
        now = _stamps_of_now(build, variant, limits.target, sha256)
    except NemoportError as error:
        return [" ".join(str(error).split())]
    except PackageNotFoundError as error:
        return [f"whether its results are of this version cannot be known without the package {error.name}"]
    problems = []
    for gate in limits.required:
        found = [r for r in results if r.gate == gate]
        stale = [what for name, (what, value) in now.items() if any(getattr(r, name) != value for r in found)]
        failed = [r for r in found if not r.passed]
        if not found:
            problems.append(f"gate {gate} was not run")
        elif failed:
            problems.append(f"gate {gate} failed: {describe(failed[0])}")
        elif stale:
            problems.append(f"gate {gate} passed with other {', '.join(stale)} than now: validate again")
    return problems


def _stamps_of_now(build: Path, variant: str, target: str, sha256: str) -> dict[str, tuple[str, str]]:
    """Field of GateResult -> (what it names, its value of now). Raises ArtifactError, PackageNotFoundError."""
    evaluation = read_evaluation(build)
    judge = judge_digest(target, evaluation.providers.get(variant, ""))
    return {
        "variant": ("variant", variant),
        "sha256": ("files", sha256),
        "limits_sha256": ("limits", limits_digest()),
        "oracle_digest": ("evaluation audio or checkpoint", evaluation.oracle_digest),
        "judge_digest": ("code or runtime", judge),
    }


def describe(result: GateResult) -> str:
    """One line of text: case, figure with its limit, evidence."""
    figure = "" if result.measured is None else f"{result.measured:.6g} {result.unit}"
    figure += "" if result.limit is None else f", limit {result.limit:g}"
    return ": ".join(part for part in (result.case, figure, result.evidence) if part)


def results_path(build: Path, variant: str) -> Path:
    return build / "results" / f"{variant}.jsonl"


def read_results(path: Path) -> list[GateResult]:
    """Returns the results in a file; none if there is no file. Raises ArtifactError if it cannot be read."""
    if not path.is_file():
        return []
    try:
        return [GateResult.from_dict(json.loads(line), path) for line in lines(path.read_text(encoding="utf-8")) if line]
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read.",
            expected="one gate result a line",
            found=f"{type(error).__name__}: {error}",
            todo="remove it and validate again",
        ) from error


def write_results(path: Path, results: list[GateResult]) -> None:
    write_bytes(path, "".join(json.dumps(r.to_dict()) + "\n" for r in results).encode())
