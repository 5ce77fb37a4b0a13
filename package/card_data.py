"""What the gates measured, as a package and its card show it: a figure that is not there is said not to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nemoport.validate.gate_result import GateResult
from nemoport.validate.result_store import read_results, results_path

NOT_MEASURED = "not measured"
# The evidence of other gates quotes single recordings, and stays with the build: evaluation audio may be private.
QUOTES_NO_AUDIO = ("cost", "wer")


@dataclass(frozen=True)
class Figures:
    """The gate results of one variant."""

    results: tuple[GateResult, ...]

    @staticmethod
    def read(build: Path, variant: str) -> Figures:
        """Raises ArtifactError."""
        return Figures(tuple(read_results(results_path(build, variant))))

    def public(self) -> Figures:
        """Without what gates quote of single recordings."""
        return Figures(tuple(r if r.gate in QUOTES_NO_AUDIO else replace(r, evidence="") for r in self.results))

    def find(self, gate: str, case: str) -> GateResult | None:
        """The figure, if it was measured."""
        found = [r for r in self.results if (r.gate, r.case) == (gate, case) and r.measured is not None]
        return found[0] if found else None

    def show(self, gate: str, case: str, form: str = "{:.2f}", scale: float = 1.0) -> str:
        result = self.find(gate, case)
        return form.format(scale * result.measured) if result else NOT_MEASURED

    def show_difference(self, case: str) -> str:
        """WER points worse than NeMo, with their 95 % interval."""
        result = self.find("wer", case)
        if result is None:
            return NOT_MEASURED
        interval = " to ".join(f"{end:+.2f}" for end in result.interval) if result.interval else NOT_MEASURED
        return f"{result.measured:+.2f} ({interval})"

    def show_differing(self, case: str) -> str:
        """Utterances whose tokens are not the oracle's."""
        result = self.find("tokens", case)
        return f"{round((1 - result.measured) * result.n)} of {result.n}" if result else NOT_MEASURED

    def gates(self) -> dict[str, int]:
        """gate -> how many of its figures passed."""
        passed = [r.gate for r in self.results if r.passed]
        return {gate: passed.count(gate) for gate in dict.fromkeys(passed)}
