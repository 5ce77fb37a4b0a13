"""Reads what the page shows: the results of each variant, what its gates kept, sensitivities, an earlier report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nemoport.errors import ArtifactError
from nemoport.validate.details import StreamByTime, Texts, read_details
from nemoport.validate.gate_result import GateResult
from nemoport.validate.limits import read_limits
from nemoport.validate.report import judged_variants
from nemoport.validate.result_store import read_results, results_path

CONTEXT, LANGUAGE, NEMO, DIFFERENCE = ": WER", "language ", ": NeMo's WER", ": difference"  # parts of the cases of gate `wer`
POOLED = "all lookaheads"


@dataclass(frozen=True)
class Judged:
    """One variant's results. place: in the page, which its anchors are made of; required: gates of gates.toml, none for an
    artifact that is built only for comparison; problems: why something that its gates kept cannot be read."""

    place: int
    name: str
    required: tuple[str, ...]
    results: tuple[GateResult, ...]
    texts: Texts | None = None
    stream: StreamByTime | None = None
    problems: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> list[GateResult]:
        """The results whose figure is a number: what charts can show."""
        return [r for r in self.results if r.measured is not None and math.isfinite(r.measured)]

    @cached_property
    def _by_case(self) -> dict[tuple[str, str], GateResult]:
        return {(r.gate, r.case): r for r in self.numbers}

    def figure(self, gate: str, case: str) -> GateResult | None:
        """The result with a figure that is a number, None if there is none."""
        return self._by_case.get((gate, case))

    def value(self, gate: str, case: str) -> float | None:
        """The figure, None if there is none."""
        found = self.figure(gate, case)
        return found.measured if found else None

    @property
    def gates(self) -> dict[str, list[GateResult]]:
        """The results by gate."""
        found: dict[str, list[GateResult]] = {}
        for result in self.results:
            found.setdefault(result.gate, []).append(result)
        return found

    @property
    def failed(self) -> list[GateResult]:
        return [result for result in self.results if not result.passed]

    @property
    def missing(self) -> list[str]:
        """Required gates without a result."""
        return [gate for gate in self.required if gate not in self.gates]

    @property
    def verdict(self) -> str:
        """ "pass", "fail" or "not run", as people read it."""
        return "fail" if self.failed else "not run" if self.missing or not self.results else "pass"

    @property
    def contexts(self) -> list[str]:
        """Contexts that WER was measured at, such as "lookahead 6", in the order of the gate."""
        return [r.case.removesuffix(CONTEXT) for r in self.results if r.gate == "wer" and r.case.endswith(CONTEXT)]

    @property
    def wer(self) -> float | None:
        """WER in percent, the mean of those at each lookahead: they are on the same words."""
        rates = [rate for context in self.contexts if (rate := self.value("wer", context + CONTEXT)) is not None]
        return sum(rates) / len(rates) if rates else None


def read_judged(build: Path) -> list[Judged]:
    """Reads the results of all variants of a build, and what their gates kept.

    Raises ArtifactError where there are no results, or some cannot be read. What gates kept and cannot be read is a problem of
    its variant.
    """
    names = judged_variants(build)
    if not names:
        raise ArtifactError(
            f"There are no gate results in {build}.",
            expected=f"{build / 'results'} with one or more VARIANT.jsonl",
            found="none",
            todo="run `nemoport validate` first",
        )
    limits = read_limits()
    found = []
    for place, name in enumerate(names):
        path, problems = results_path(build, name), []
        results = read_results(path)
        texts, stream = (_kept(path, gate, results, problems) for gate in ("wer", "longform"))
        required = limits[name].required if name in limits else ()
        found.append(Judged(place, name.removeprefix("extra-"), required, tuple(results), texts, stream, tuple(problems)))
    return found


def _kept(path: Path, gate: str, results: Sequence[GateResult], problems: list[str]) -> Any:
    try:
        return read_details(path, gate, results)
    except ArtifactError as error:
        problems.append(" ".join(str(error).split()))
        return None


def first_seen(lists: Iterable[Iterable[str]]) -> list[str]:
    """Returns each text once, in the order in which they come."""
    return list(dict.fromkeys(one for each in lists for one in each))
