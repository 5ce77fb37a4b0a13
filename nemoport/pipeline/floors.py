"""Figures that a team asks of a release besides the gates: `nemoport gate --fail-under exact=99 --fail-over wer=12`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemoport.errors import UsageError
from nemoport.text import clipped
from nemoport.validate.gate_result import GateResult, within

GATE = "asked"  # the name under which these figures are reported


@dataclass(frozen=True)
class Figure:
    """A figure that can be asked for. at_least: more of it is better; read(results): its value, None where not measured."""

    unit: str
    at_least: bool
    read: Callable[[Sequence[GateResult]], float | None]


def _of(gate: str, case: str, scale: float = 1.0) -> Callable[[Sequence[GateResult]], float | None]:
    def read(results: Sequence[GateResult]) -> float | None:
        found = next((r.measured for r in results if (r.gate, r.case) == (gate, case)), None)
        return None if found is None else scale * found

    return read


def _worst_wer(results: Sequence[GateResult]) -> float | None:
    rates = [r.measured for r in results if r.gate == "wer" and r.case.endswith(": WER") and r.measured is not None]
    return max(rates, default=None)


FIGURES = {
    "exact": Figure("% of runs token-exact", True, _of("tokens", "all", 100.0)),
    "speed": Figure("times real time", True, _of("cost", "speed")),
    "wer": Figure("% at the worst lookahead", False, _worst_wer),
    "above-nemo": Figure("WER points", False, _of("wer", "all lookaheads: difference")),
    "megabytes": Figure("MB on disk", False, _of("cost", "bytes", 1e-6)),
    "memory": Figure("MB at the peak", False, _of("cost", "peak memory", 1e-6)),
}


@dataclass(frozen=True)
class Asked:
    """A figure and the least or the most of it that passes."""

    name: str
    limit: float

    def judge(self, variant: str, results: Sequence[GateResult]) -> GateResult:
        """Returns the result for one variant. A figure that was not measured fails."""
        figure = FIGURES[self.name]
        value = figure.read(results)
        measured = math.nan if value is None else value
        status = within(measured, self.limit, at_least=figure.at_least, n=1)
        sha256 = results[0].sha256 if results else ""
        evidence = "not measured" if value is None else f"at {'least' if figure.at_least else 'most'} {self.limit:g} is asked for"
        return GateResult(GATE, variant, sha256, status, self.name, measured, self.limit, figure.unit, 1, evidence=evidence)


def read_asked(under: Sequence[str], over: Sequence[str]) -> list[Asked]:
    """Reads NAME=VALUE of `--fail-under` and `--fail-over`. Raises UsageError for other names and values, and for a figure that
    belongs to the other option."""
    return [_read(text, at_least) for texts, at_least in ((under, True), (over, False)) for text in texts]


def _read(text: str, at_least: bool) -> Asked:
    option, other = ("--fail-under", "--fail-over") if at_least else ("--fail-over", "--fail-under")
    name, _, value = text.partition("=")
    fitting = [one for one, figure in FIGURES.items() if figure.at_least == at_least]
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if name not in fitting or not math.isfinite(limit):
        raise UsageError(
            f"{option} cannot be read.",
            expected=f"FIGURE=NUMBER, FIGURE one of {', '.join(fitting)}",
            found=clipped(text),
            todo=f"use {other} for {name}" if name in FIGURES and name not in fitting else "mend it",
        )
    return Asked(name, limit)
