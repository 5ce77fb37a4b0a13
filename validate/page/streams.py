"""The sections of the page on long streams, on the drift of encoder frames, on the confidence of words and on sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import TypedDict

from nemoport.errors import ArtifactError
from nemoport.files import read_json
from nemoport.quantize.sensitivity import Cost
from nemoport.schema import check, most, real
from nemoport.spec import context_name
from nemoport.validate.details import Drift
from nemoport.validate.page.charts import POINTS, SAID, WIDTH, Chart, colour, dash, label_width
from nemoport.validate.page.rates import ROW
from nemoport.validate.page.sources import Judged, first_seen
from nemoport.validate.reliability_plot import points_of

PARTS = 40  # of a stream, each with a point of the chart
LEAST_RATIO = 1e-8  # of a frame's error: below it are differences of rounding, and zero has no logarithm
MINUTES = {"field": "minute", "type": "ordinal", "axis": {"labelAngle": 0, "labelOverlap": True}}
# Colour and strength of a cell, as its row has them.
SHADE = {
    "color": {"field": "colour", "type": "nominal", "scale": None},
    "opacity": {"field": "strength", "type": "quantitative", "scale": None},
}
Share = Annotated[float, real(0, 1e30)]


class _Cost(TypedDict):
    noise: Share
    tokens: Share


class _Measured(TypedDict):
    """build/sensitivity/DIGEST.json, as quantize/sensitivity.py writes it."""

    inputs: dict[str, Any]
    costs: Annotated[dict[str, _Cost], most(100_000)]


def by_minute(judged: Sequence[Judged]) -> dict[str, Any]:
    """Returns a chart and a table of WER minute by minute. rows: (minute, words, NeMo's WER, the WER of each variant)."""
    known = [one for one in judged if one.stream and one.stream["minutes"]]
    of = {one.name: {m["number"]: m for m in one.stream["minutes"]} for one in known if one.stream}
    numbers = sorted({number for minutes in of.values() for number in minutes})
    values = [
        {"variant": name, "minute": n, "above": m["wer"] - m["nemo"], "wer": m["wer"], "nemo": m["nemo"], "words": m["words"]}
        for name, minutes in of.items()
        for n, m in minutes.items()
    ]
    charts = []
    if values:
        first = next(iter(of.values()))
        nemo = [{"minute": n, "nemo": m["nemo"], "said": f"minute {n}: {m['nemo']:.1f} %"} for n, m in first.items()]
        charts = [_minutes(list(of), values), _nemo(nemo)]
    rows = []
    for number in numbers:
        shown = [of[name].get(number) for name in of]
        some = next(m for m in shown if m)
        rows.append((number, some["words"], some["nemo"], [m["wer"] if m else None for m in shown]))
    return {
        "charts": charts,
        "names": list(of),
        "rows": rows,
        "context": context_name(known[0].stream["lookahead"]) if known and known[0].stream else "",
        "without": [one.name for one in judged if one.name not in of and "longform" in one.gates],
    }


def _minutes(names: Sequence[str], values: list[dict[str, Any]]) -> Chart:
    far = max(2.0, *(abs(value["above"]) for value in values))
    for value in values:  # Vega cannot mix colours of style.css, so the strength is opacity
        value["colour"] = "var(--warm)" if value["above"] > 0 else "var(--cool)"
        value["said"] = "{variant}, minute {minute}: WER {wer:.1f} %, NeMo's {nemo:.1f} %, {words} words".format(**value)
        value["strength"] = round(0.06 + 0.94 * abs(value["above"]) / far, 3)
    encoding = {
        "x": MINUTES,
        "y": {"field": "variant", "type": "nominal", "sort": names, "title": None},
        **SHADE,
        "description": SAID,
    }
    size = {"width": WIDTH - label_width(names) - 10, "height": {"step": ROW}}
    return Chart(f"{POINTS}, by minute", "minutes", {**size, "data": {"values": values}, "mark": "rect", "encoding": encoding})


def _nemo(values: list[dict[str, Any]]) -> Chart:
    y = {"field": "nemo", "type": "quantitative", "axis": {"title": "WER, %", "tickCount": 4}}
    bar = {"mark": {"type": "bar", "color": "var(--muted)"}, "encoding": {"x": MINUTES, "y": y, "description": SAID}}
    return Chart("NeMo's own WER, by minute", "nemo", {"width": WIDTH - 50, "height": 90, "data": {"values": values}, **bar})


def drift(judged: Sequence[Judged]) -> list[Chart]:
    """How far encoder frames are from NeMo's over a long stream."""
    values = [
        {"variant": one.name, "minute": seconds / 60, "ratio": max(ratio, LEAST_RATIO), "said": one.name}
        for one in judged
        if one.stream
        for seconds, ratio in _means(one.stream["drift"])
    ]
    if not values:
        return []
    names = [one.name for one in judged if one.stream and one.stream["drift"]]
    every = [one.name for one in judged]
    encoding = {
        "x": {"field": "minute", "type": "quantitative", "axis": {"title": "minutes of the stream"}},
        "y": {
            "field": "ratio",
            "type": "quantitative",
            "scale": {"type": "log"},
            "axis": {"title": "rms error / rms of NeMo's frame", "format": "~e", "tickCount": 5},
        },
        "color": colour(every, legend=_legend(names)),
        "strokeDash": dash(every),
        "description": SAID,
    }
    mark = {"type": "line", "strokeWidth": 1.5, "point": False}
    spec = {"width": WIDTH - 66, "height": 220, "data": {"values": values}, "mark": mark, "encoding": encoding}
    return [Chart("Error of encoder frames over one stream", "drift", spec)]


def _means(drift: Sequence[Drift]) -> list[tuple[float, float]]:
    """Means (seconds, ratio) over equal parts of the stream: many frames are kept of its beginning and its end."""
    length = max((at["seconds"] for at in drift), default=0.0) / PARTS
    parts: dict[int, list[Drift]] = {}
    for at in drift:
        parts.setdefault(int(at["seconds"] / length) if length else 0, []).append(at)
    return [(sum(at["seconds"] for at in p) / len(p), sum(at["ratio"] for at in p) / len(p)) for p in parts.values()]


def _legend(names: Sequence[str]) -> dict[str, Any]:
    return {"orient": "bottom", "columns": 2, "values": list(names), "title": None, "symbolType": "stroke"}


def confidence(judged: Sequence[Judged]) -> dict[str, Any]:
    """Returns a chart of the share of words that are right by their confidence, and a row (variant, calibration error, words)."""
    points = {one.name: found for one in judged if (found := points_of(one.numbers))}
    values = [
        {"variant": n, "at": at, "right": share, "said": f"{n}: at {at:.2f} {100 * share:.1f} % of {words} words right"}
        for n, found in points.items()
        for at, share, words in found
    ]
    rows = [
        (one.name, error.measured, error.n)
        for one in judged
        if (error := one.figure("words", "calibration error of confidence")) is not None
    ]
    if not values:
        return {"charts": [], "rows": rows}
    every = [one.name for one in judged]
    x = {"field": "at", "type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"title": "confidence of a word"}}
    y = {"field": "right", "type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"title": "share right"}}
    shown = {"x": x, "y": y, "color": colour(every, legend=_legend(list(points))), "strokeDash": dash(every)}
    even = {"type": "line", "color": "var(--muted)", "strokeDash": [3, 3], "aria": False}
    layers = [
        {"data": {"values": [{"at": 0, "right": 0}, {"at": 1, "right": 1}]}, "mark": even, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": shown},
        {"mark": {"type": "point", "filled": True, "size": 22}, "encoding": {**shown, "description": SAID}},
    ]
    spec = {"width": WIDTH - 54, "height": 240, "data": {"values": values}, "layer": layers}
    return {"charts": [Chart("Share of words that are right, by confidence", "confidence", spec)], "rows": rows}


def sensitivity(build: Path) -> dict[str, Any]:
    """Returns a heat map for each measurement of `nemoport sensitivity`, and the problems of those that cannot be read."""
    charts, problems = [], []
    for place, path in enumerate(sorted((build / "sensitivity").glob("*.json"))):
        try:
            todo = f"remove {path} and measure again"
            costs = check(_Measured, read_json(path, todo), str(path), todo)["costs"]
        except ArtifactError as error:
            problems.append(" ".join(str(error).split()))
            continue
        charts.append(_heat(f"heat{place}", {group: Cost(**cost) for group, cost in costs.items()}))
    return {"charts": charts, "problems": problems}


def _heat(name: str, costs: Mapping[str, Cost]) -> Chart:
    groups = {group: group.partition(".") for group in costs}
    decibels = [cost.snr_db for cost in costs.values()]
    low, high = min(decibels, default=0.0), max(decibels, default=0.0)
    values = [
        {
            "layer": layer,
            "module": module,
            "db": costs[group].snr_db,
            "said": f"layer {layer}, {module}: {costs[group].snr_db:.1f} dB",
            "colour": "var(--warm)",
            "strength": round(0.08 + 0.72 * (high - costs[group].snr_db) / ((high - low) or 1), 3),
        }
        for group, (layer, _, module) in groups.items()
    ]
    layers = sorted({value["layer"] for value in values}, key=lambda text: (len(text), text))
    modules = first_seen([module] for _, _, module in groups.values())
    x = {"field": "module", "type": "nominal", "sort": modules, "title": None, "axis": {"orient": "top", "labelAngle": -30}}
    y = {"field": "layer", "type": "nominal", "sort": layers, "axis": {"title": "layer"}}
    cell = {"mark": "rect", "encoding": {"x": x, "y": y, **SHADE, "description": SAID}}
    number = {"type": "text", "fontSize": 10, "color": "var(--text)", "aria": False}
    text = {"mark": number, "encoding": {"x": x, "y": y, "text": {"field": "db", "format": ".0f"}}}
    size = {"width": WIDTH - 60, "height": {"step": ROW + 3}}
    title = "dB of the encoder's frames if this part alone has 4-bit weights"
    return Chart(title, name, {**size, "data": {"values": values}, "layer": [cell, text]})
