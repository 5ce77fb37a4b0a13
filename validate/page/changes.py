"""The section of the page on what changed since an earlier report, and the figures that the page holds for a later one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import with_config
from typing_extensions import TypedDict

from nemoport.errors import ArtifactError
from nemoport.files import MOST_JSON_BYTES
from nemoport.schema import CLOSED, check, most
from nemoport.validate.page.sources import Judged, read_judged

FIGURES_TAG = '<script type="application/json" id="figures">'  # begins the element of a page that holds its figures
Text = Annotated[str, most(10_000)]
Row = tuple[Text, Text, Text, float | None, bool]  # gate, case, unit, figure, passed
TODO = "choose a build folder with results, or a report.html that nemoport wrote"


@with_config(CLOSED)
class Figures(TypedDict):
    """The figures of one variant. oracle: digest of checkpoint and corpus; rows: a gate's figures."""

    verdict: Text
    oracle: Text
    rows: Annotated[list[Row], most(100_000)]


@with_config(CLOSED)
class Held(TypedDict):
    variants: Annotated[dict[Text, Figures], most(10_000)]


@dataclass(frozen=True)
class Change:
    """A figure of a variant before and now, and its verdicts: "pass", "fail", or "" where it was not there."""

    variant: str
    gate: str
    case: str
    unit: str
    before: float | None
    now: float | None
    was: str
    verdict: str

    @property
    def by(self) -> float:
        """By how much of what it was it changed; infinite where it was zero, or is a number on one side alone."""
        if self.before is None or self.now is None or not self.before:
            return math.inf
        return abs(self.now - self.before) / abs(self.before)


SHOWN = 200  # figures that changed and whose verdict is the same


def figures_of(judged: Sequence[Judged]) -> Held:
    """Returns the figures that a page holds of its variants. Figures that are no numbers become None, as JSON has none."""

    def row(r: Any) -> Row:
        number = r.measured if r.measured is not None and math.isfinite(r.measured) else None
        return (r.gate, r.case, r.unit, number, r.passed)

    return {
        "variants": {
            one.name: {
                "verdict": one.verdict,
                "oracle": next((r.oracle_digest for r in one.results), ""),
                "rows": [row(r) for r in one.results],
            }
            for one in judged
        }
    }


def read_figures(place: Path) -> Held:
    """Reads the figures of an earlier report.html, or of a build with results. Raises ArtifactError."""
    if place.is_dir():
        if not (place / "results").is_dir() and (place / "report.html").is_file():
            return read_figures(place / "report.html")
        return figures_of(read_judged(place))
    expected = "a report.html of nemoport, or a build folder"
    try:
        with open(place, "rb") as stream:
            content = stream.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        problem = error.strerror or str(error)
        raise ArtifactError(f"{place} cannot be read.", expected=expected, found=problem, todo=TODO) from error
    if len(content) > MOST_JSON_BYTES:
        raise ArtifactError(f"{place} is too large.", expected=expected, found=f"over {MOST_JSON_BYTES} bytes", todo=TODO)
    _, _, behind = content.decode("utf-8", "replace").partition(FIGURES_TAG)
    try:
        raw = json.loads(behind.partition("</script>")[0])
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{place} holds no figures.", expected=expected, found="none", todo=TODO) from error
    return check(Held, raw, str(place), TODO)


def changes(before: Held, now: Held) -> dict[str, Any]:
    """Compares two reports: variants that are new or gone, verdicts, figures; the largest changes first."""
    old, new = before["variants"], now["variants"]
    both = [name for name in new if name in old]
    pairs = [(name, old[name]["verdict"], new[name]["verdict"]) for name in both]
    every = [change for name in both for change in _of_variant(name, old[name]["rows"], new[name]["rows"])]
    found = sorted((c for c in every if (c.before, c.was) != (c.now, c.verdict)), key=lambda change: -change.by)
    moved = [change for change in found if change.was == change.verdict or "" in (change.was, change.verdict)]
    return {
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "verdicts": [pair for pair in pairs if pair[1] != pair[2]],
        "other_runs": [name for name in both if old[name]["oracle"] != new[name]["oracle"]],
        "turned": [change for change in found if change not in moved],
        "moved": moved[:SHOWN],
        "more": max(0, len(moved) - SHOWN),
        "same": len(every) - len(found),
    }


def _of_variant(name: str, before: Sequence[Row], now: Sequence[Row]) -> list[Change]:
    old, new = _by_case(before), _by_case(now)
    found = []
    for gate, case, unit in [*old, *(key for key in new if key not in old)]:
        (number, was), (measured, verdict) = (side.get((gate, case, unit), (None, "")) for side in (old, new))
        found.append(Change(name, gate, case, unit, number, measured, was, verdict))
    return found


def _by_case(rows: Sequence[Row]) -> dict[tuple[str, str, str], tuple[float | None, str]]:
    return {(gate, case, unit): (number, "pass" if passed else "fail") for gate, case, unit, number, passed in rows}
