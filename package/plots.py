"""The picture of a card: accuracy and size of its variants, as a PNG."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from nemoport.package.layout import CardFacts

NAME = "figures.png"
SECONDS = 120  # that drawing may take
# As in nemoport/validate/page/charts.py: Vega runs in V8, in a process of its own. Its own font is the same on every machine.
DRAWER = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.vegalite_to_png(sys.stdin.read(), scale=1.5))"
_LEAST = {"config": {"font": "Roboto", "view": {"stroke": None}, "axis": {"labelLimit": 160}}, "background": "white"}


def plot(facts: CardFacts) -> bytes | None:
    """Draws WER points above NeMo with their intervals, and megabytes, of each variant; None where no variant has an interval, or
    what draws is not installed."""
    rows = [
        {"variant": name, "points": found.value, "lower": interval[0], "upper": interval[1], "megabytes": facts.sizes[name] / 1e6}
        for name, one in facts.figures.items()
        if (found := one.find("wer", "all lookaheads: difference")) and (interval := found.result.interval)
    ]
    if not rows:
        return None
    try:
        spec = json.dumps(_spec(rows), allow_nan=False)
        done = subprocess.run(
            [sys.executable, "-c", DRAWER], input=spec.encode(), capture_output=True, timeout=SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout or None


def _spec(rows: list[dict[str, Any]]) -> dict[str, Any]:
    variant = {"field": "variant", "type": "nominal", "title": None, "sort": None}
    points = {"type": "quantitative", "title": "WER points above NeMo, 95 % interval"}
    interval = {
        "width": 280,
        "encoding": {"y": variant},
        "layer": [
            {"mark": "rule", "encoding": {"x": {"datum": 0}, "y": None, "color": {"value": "#999"}}},
            {"mark": "rule", "encoding": {"x": {"field": "lower", **points}, "x2": {"field": "upper"}}},
            {"mark": {"type": "point", "filled": True, "size": 50}, "encoding": {"x": {"field": "points", **points}}},
        ],
    }
    size = {
        "width": 160,
        "mark": {"type": "bar", "height": 8},
        "encoding": {
            "y": {**variant, "axis": {"labels": False, "ticks": False}},
            "x": {"field": "megabytes", "type": "quantitative", "title": "MB"},
        },
    }
    return {**_LEAST, "data": {"values": rows}, "hconcat": [interval, size]}
