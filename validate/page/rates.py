"""The section of the page on word errors: WER with intervals, at each lookahead and in each language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nemoport.validate.page.charts import POINTS, SAID, WIDTH, Chart, colour, label_width
from nemoport.validate.page.intervals import Rate, rates
from nemoport.validate.page.sources import CONTEXT, DIFFERENCE, LANGUAGE, NEMO, POOLED, Judged, first_seen

ROW = 17  # pixels of a variant in a chart


def word_errors(judged: Sequence[Judged]) -> dict[str, Any]:
    """Returns charts (one for each lookahead, the difference over all, one for each variant by language) and rows of a table."""
    of_variant = {one.name: rates(one.texts) for one in judged if one.texts}
    contexts = first_seen(one.contexts for one in judged)
    at = [_dots(f"WER at {one}, in %", f"wer{n}", judged, _at_context(judged, of_variant, one)) for n, one in enumerate(contexts)]
    above = [_above(one, f"{POOLED}{DIFFERENCE}", one.name) for one in judged]
    charts = [*at, _dots("All lookaheads pooled: WER points above NeMo's", "above", judged, above, POINTS, zero=True)]
    languages = first_seen(_languages(one) for one in judged)
    by_language = [[_above(one, f"{LANGUAGE}{language}{DIFFERENCE}", language) for language in languages] for one in judged]
    ends = [row[name] for rows in by_language for row in rows for name in ("value", "low", "high") if name in row]
    scale = {"domain": [min(ends), max(ends)]} if ends else {}  # the same for all, so that they can be compared
    for one, rows in zip(judged, by_language, strict=True):
        title = f"{one.name} by language, all lookaheads"
        charts.append(_dots(title, f"lang{one.place}", judged, rows, POINTS, zero=True, names=languages, scale=scale))
    return {
        "charts": [chart for chart in charts if chart],
        "rows": [(name, rate) for name, found in of_variant.items() for rate in found],
        "without": [one.name for one in judged if one.name not in of_variant],
        "languages": languages,
    }


def _languages(one: Judged) -> list[str]:
    cases = [r.case for r in one.results if r.gate == "wer" and r.case.startswith(LANGUAGE)]
    return [case.removeprefix(LANGUAGE).removesuffix(DIFFERENCE) for case in cases if case.endswith(DIFFERENCE)]


def _at_context(judged: Sequence[Judged], of_variant: dict[str, list[Rate]], context: str) -> list[dict[str, Any]]:
    """Rows of a chart: of each variant its rate, NeMo's, and the ends of the interval where they are known."""
    found = []
    for one in judged:
        rate, nemo = (one.value("wer", context + case) for case in (CONTEXT, NEMO))
        ends = [r.own for r in of_variant.get(one.name, ()) if (r.language, r.context) == ("", context)]
        if rate is not None:
            row = {"row": one.name, "variant": one.name, "value": rate, "nemo": nemo}
            found.append(row | ({"low": ends[0].lower, "high": ends[0].upper} if ends else {}))
    return found


def _above(one: Judged, case: str, row: str) -> dict[str, Any]:
    """A row of a chart: the difference from NeMo and its interval; empty where it was not measured."""
    found = one.figure("wer", case)
    if found is None:
        return {}
    ends = found.interval if found.interval and all(map(math.isfinite, found.interval)) else ()
    return {"row": row, "variant": one.name, "value": found.measured, **dict(zip(("low", "high"), ends, strict=False))}


def _dots(
    caption: str,
    name: str,
    judged: Sequence[Judged],
    rows: Sequence[dict[str, Any]],
    title: str = "WER, %",
    *,
    zero: bool = False,
    names: Sequence[str] | None = None,
    scale: dict[str, Any] | None = None,
) -> Chart | None:
    """A dot with its interval for each row, and NeMo's rate as a tick; None where there is no row.

    names: of the rows, by default the variants; zero: mark it; scale: of the figures, where it is given.
    """
    rows = [row for row in rows if row]
    if not rows:
        return None
    names = [n for n in names or [one.name for one in judged] if any(row["row"] == n for row in rows)]
    y = {"field": "row", "type": "nominal", "sort": names, "title": None, "axis": {"domain": False, "ticks": False}}
    x = {
        "type": "quantitative",
        "scale": {"zero": False, "nice": True, **(scale or {})},
        "axis": {"title": title, "tickCount": 5},
    }
    shade = colour([one.name for one in judged], legend=None)
    for row in rows:
        ends = f", 95 % {row['low']:.2f} to {row['high']:.2f}" if "low" in row else ""
        row["said"] = f"{row['row']}: {row['value']:.2f} {'points' if zero else '%'}{ends}"
    layers: list[dict[str, Any]] = []
    if zero:
        layers.append({"data": {"values": [{"at": 0}]}, "mark": {"type": "rule", "color": "var(--muted)"}})
        layers[-1]["encoding"] = {"x": {**x, "field": "at"}}
    if any("low" in row for row in rows):
        ends = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": shade}
        layers.append({"mark": {"type": "rule", "strokeWidth": 2, "aria": False}, "encoding": ends})
    if any(row.get("nemo") is not None for row in rows):
        tick = {"type": "tick", "color": "var(--text)", "thickness": 2, "size": 12, "aria": False}
        layers.append({"mark": tick, "encoding": {"x": {**x, "field": "nemo"}, "y": y}})
    dot = {"type": "point", "filled": True, "size": 55, "opacity": 1}
    layers.append({"mark": dot, "encoding": {"x": {**x, "field": "value"}, "y": y, "color": shade, "description": SAID}})
    width = WIDTH - label_width(names) - 14
    return Chart(caption, name, {"width": width, "height": {"step": ROW}, "data": {"values": rows}, "layer": layers})
