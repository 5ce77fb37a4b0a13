"""The section of the page on size, speed and WER together: what no other variant betters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemoport.validate.page.charts import SAID, WIDTH, Chart, colour
from nemoport.validate.page.sources import Judged


@dataclass(frozen=True)
class Cost:
    """What a variant takes and gives. wer: in percent, mean of all lookaheads; speed: times real time; front: no other variant is
    as good in all of size, speed and WER, and better in one."""

    variant: str
    size_mb: float
    wer: float
    speed: float | None
    peak_mb: float | None
    passed: bool
    front: bool = False


def costs(judged: Sequence[Judged]) -> dict[str, Any]:
    """Returns charts (WER by size, WER by speed) and a row for each variant whose size and WER are known."""
    found = []
    for one in judged:
        size, wer = one.value("cost", "bytes"), one.wer
        if size is not None and wer is not None:
            speed, peak = one.value("cost", "speed"), one.value("cost", "peak memory")
            found.append(Cost(one.name, size / 1e6, wer, speed, None if peak is None else peak / 1e6, one.verdict == "pass"))
    rows = [Cost(**{**vars(c), "front": not any(_betters(other, c) for other in found)}) for c in found]
    names = [one.name for one in judged]
    charts = [_plane("WER by size", names, rows, "size_mb", "MB on disk")] if rows else []
    timed = [row for row in rows if row.speed is not None]
    if timed:
        charts.append(_plane("WER by speed", names, timed, "speed", "times real time, one stream"))
    return {"charts": charts, "rows": rows}


def _betters(one: Cost, other: Cost) -> bool:
    """Whether `one` is as good as `other` in everything that is known of both, and better in something."""
    pairs = [(one.size_mb, other.size_mb), (one.wer, other.wer)]
    if one.speed is not None and other.speed is not None:
        pairs.append((-one.speed, -other.speed))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def staircase(points: Sequence[tuple[float, float]], *, more_is_better: bool) -> list[tuple[float, float]]:
    """Returns the points (x, y) that none betters in both, from the best x on. The least y is the best."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (-p[0] if more_is_better else p[0], p[1])):
        if not found or y < found[-1][1]:
            found.append((x, y))
    return found


def _plane(caption: str, names: Sequence[str], rows: Sequence[Cost], field: str, title: str) -> Chart:
    """Variants by `field` and WER, with the line of those that none betters in these two."""
    points = [(getattr(row, field), row.wer) for row in rows]
    line = [{"x": x, "y": y, "order": i} for i, (x, y) in enumerate(staircase(points, more_is_better=field == "speed"))]
    values = [
        {"variant": r.variant, "x": x, "y": y, "front": r.front, "said": f"{r.variant}: {x:.1f} {title}, WER {y:.2f} %"}
        for r, (x, y) in zip(rows, points, strict=True)
    ]
    x = {"field": "x", "type": "quantitative", "scale": {"zero": False, "nice": True, "padding": 12}, "axis": {"title": title}}
    y = {"field": "y", "type": "quantitative", "scale": {"zero": False, "nice": True, "padding": 12}, "axis": {"title": "WER, %"}}
    legend = {"orient": "bottom", "columns": 2, "title": None, "values": [row.variant for row in rows]}
    shown = {"x": x, "y": y, "color": colour(names, legend=legend), "description": SAID}
    step = {"type": "line", "interpolate": "step-after", "color": "var(--muted)", "strokeDash": [4, 3], "aria": False}
    filled = {"condition": {"test": "datum.front", "value": 1}, "value": 0.35}
    layers = [
        {"data": {"values": line}, "mark": step, "encoding": {"x": x, "y": y, "order": {"field": "order"}}},
        {"mark": {"type": "point", "filled": True, "size": 90}, "encoding": {**shown, "opacity": filled}},
    ]
    spec = {"width": WIDTH - 58, "height": 200, "data": {"values": values}, "layer": layers}
    return Chart(caption, field.replace("_", ""), spec)
