"""Figures that the gates measured, as a package and its card show them; an absent figure is shown as not measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from nemoport.validate.gate_result import GateResult
from nemoport.validate.result_store import read_results, results_path

NOT_MEASURED = "not measured"
# The evidence of other gates quotes single recordings, and stays with the build: evaluation audio may be private.
QUOTES_NO_AUDIO = ("cost", "wer")


class Measured(NamedTuple):
    """A figure that was measured, and the gate result that it is from."""

    value: float
    result: GateResult


@dataclass(frozen=True)
class Figures:
    """Gate results of one variant. Methods take a figure by its gate and its case, as `GateResult` names them."""

    results: tuple[GateResult, ...]

    @staticmethod
    def read(build: Path, variant: str) -> Figures:
        """Reads the results that `nemoport validate` stored in the build. Raises ArtifactError."""
        return Figures(tuple(read_results(results_path(build, variant))))

    def public(self) -> Figures:
        """Returns the results without what gates quote of single recordings."""
        return Figures(tuple(r if r.gate in QUOTES_NO_AUDIO else replace(r, evidence="") for r in self.results))

    def find(self, gate: str, case: str) -> Measured | None:
        """Returns the figure, None if it was not measured."""
        for result in self.results:
            if (result.gate, result.case) == (gate, case) and result.measured is not None:
                return Measured(result.measured, result)
        return None

    def show(self, gate: str, case: str, form: str = "{:.2f}", scale: float = 1.0) -> str:
        """Returns the figure times `scale`, by a format string of one place, or `NOT_MEASURED`."""
        found = self.find(gate, case)
        return form.format(scale * found.value) if found else NOT_MEASURED

    def show_difference(self, case: str) -> str:
        """Returns the WER points above NeMo's with their 95 % interval, "+0.12 (-0.20 to +0.45)", or `NOT_MEASURED`."""
        found = self.find("wer", case)
        if found is None:
            return NOT_MEASURED
        interval = found.result.interval
        return f"{found.value:+.2f} ({' to '.join(f'{end:+.2f}' for end in interval) if interval else NOT_MEASURED})"

    def show_differing(self, case: str) -> str:
        """Returns how many utterances have other tokens than the oracle's, "20 of 640", or `NOT_MEASURED`."""
        found = self.find("tokens", case)
        return f"{round((1 - found.value) * found.result.n)} of {found.result.n}" if found else NOT_MEASURED

    def gates(self) -> dict[str, int]:
        """Returns gate -> how many of its figures passed."""
        passed = [r.gate for r in self.results if r.passed]
        return {gate: passed.count(gate) for gate in dict.fromkeys(passed)}
