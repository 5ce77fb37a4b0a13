"""A variant against the same variant of the last published package, on the same recordings: what a release must not lose.

Both are judged by the gates `wer` and `tokens`; the errors that `wer` keeps of each utterance make a paired comparison. The
limits are in regression.toml.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError
from nemoport.score import Interval, WordCounts, wer_difference
from nemoport.validate.context import Context
from nemoport.validate.details import Texts, read_details
from nemoport.validate.gate_result import FAIL, GateResult, artifact_sha256, within
from nemoport.validate.result_store import describe, read_results, results_path
from nemoport.validate.run import judge

LIMITS = Path(__file__).with_name("regression.toml")
GATE = "regression"  # the name under which its figures are reported


@dataclass(frozen=True)
class Side:
    """One side of the comparison: its files, its results of the gates, and the errors of each utterance."""

    sha256: str
    size: int
    results: list[GateResult]
    texts: Texts


def read_regression_limits(path: Path = LIMITS) -> dict[str, dict[str, float]]:
    """Returns table -> limit -> value."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: {key: float(value) for key, value in table.items() if key != "reason"} for name, table in raw.items()}


def judged_side(context: Context, results: Path) -> Side:
    """Judges a variant by `wer` and `tokens`, or takes what was judged before. results: the file of its results. Raises
    ArtifactError where it does not run."""
    found = judge(context, results, ["tokens", "wer"])
    return _side(context.folder, results, found)


def read_side(build: Path, variant: str) -> Side:
    """Reads what `nemoport validate` found of a variant. Raises ArtifactError where it did not judge it."""
    path = results_path(build, variant)
    return _side(build / variant, path, read_results(path))


def _side(folder: Path, path: Path, results: list[GateResult]) -> Side:
    texts = read_details(path, "wer", results)
    if texts is None:
        failed = next((describe(result) for result in results if result.gate == "wer" and not result.passed), "none")
        raise ArtifactError(
            f"{folder} has no errors of single utterances.",
            expected="results of the gate `wer`",
            found=failed,
            todo="run `nemoport validate` on it; a variant that does not run cannot be compared",
        )
    entries = Artifact.open(folder).manifest.files.values()
    return Side(artifact_sha256(folder), sum(entry.bytes for entry in entries), results, texts)


def regressions(
    variant: str, now: Side, before: Side, *, same_checkpoint: bool, limits: dict[str, dict[str, float]] | None = None
) -> list[GateResult]:
    """Compares a variant with the released one. same_checkpoint: whether NeMo's tokens are a measure of both.

    Raises ArtifactError where they were judged on different recordings, or share no lookahead.
    """
    limits = limits or read_regression_limits()
    difference, shared = _difference(now.texts, before.texts)
    n, release = len(now.texts["words"]), f"release {before.sha256[:12]}"

    def judged(case: str, measured: float, limit: float, unit: str, **more: Any) -> GateResult:
        status = within(measured, limit, at_least=False, n=n)
        more = {"evidence": release} | more
        return GateResult(GATE, variant, now.sha256, status, case, float(measured), limit, unit, n, **more)

    interval = {"interval": (difference.lower, difference.upper), "evidence": f"{release}, {shared} lookaheads"}
    wer, size = limits["wer"], now.size / before.size
    results = [
        judged("WER above the release", difference.value, wer["max_difference_points"], "WER points", **interval),
        judged("WER above the release: lower end", difference.lower, wer["max_lower_end_points"], "WER points", **interval),
        judged("bytes of the release's", size, limits["size"]["max_bytes_ratio"], "ratio"),
    ]
    shares = [_exact_share(side) for side in (now, before)]
    if same_checkpoint and shares[0] is not None and shares[1] is not None:
        limit = limits["tokens"]["max_lost_exact_share"]
        evidence = f"{release}: {shares[1]:.4f}, now {shares[0]:.4f}"
        results.append(judged("lost share of token-exact runs", shares[1] - shares[0], limit, "share", evidence=evidence))
    return results


def gone(variant: str) -> GateResult:
    """Returns the result for a variant of the release that the build does not have."""
    return GateResult(GATE, variant, "", FAIL, "is in the release", evidence="the build has no such variant")


def _difference(now: Texts, before: Texts) -> tuple[Interval, int]:
    """Returns the paired difference over the lookaheads that both serve, and their number."""
    runs = [{str(run["lookahead"]): run["errors"] for run in side["runs"]} for side in (now, before)]
    shared = [lookahead for lookahead in runs[0] if lookahead in runs[1]]
    words = now["words"]
    if not shared or words != before["words"]:
        raise ArtifactError(
            "The release cannot be compared with the build.",
            expected="results on the same recordings, at a lookahead that both serve",
            found=f"lookaheads {', '.join(runs[0])} and {', '.join(runs[1])}; {len(words)} and {len(before['words'])} utterances",
            todo="validate both on one corpus; models of other kinds cannot be compared",
        )
    own, released = (
        [[WordCounts(count, side[lookahead][i], 0, 0) for lookahead in shared] for i, count in enumerate(words)] for side in runs
    )
    return wer_difference(own, released), len(shared)


def _exact_share(side: Side) -> float | None:
    return next((r.measured for r in side.results if (r.gate, r.case) == ("tokens", "all")), None)
