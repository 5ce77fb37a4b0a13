"""Charts of Vega-Lite, drawn as SVG whose colours are those of the page: style.css states them, for light and for dark."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH = 336  # pixels, so that a chart fits a phone unscaled
SERIES = 10  # colours of style.css, --s0 to --s9
DASHES = ([], [4, 2], [1, 2])  # tell lines of one colour apart
POINTS = "WER points above NeMo"
SECONDS = 300  # that drawing may take
_FONT = {"titleFontWeight": 500, "labelFontSize": 11, "titleFontSize": 11}
_TEXT = {"labelColor": "var(--muted)", "titleColor": "var(--text)", **_FONT}
THEME: dict[str, Any] = {
    "background": "transparent",
    "font": "sans-serif",
    "padding": 2,
    "view": {"stroke": "transparent"},
    "axis": {**_TEXT, "gridColor": "var(--line)", "domainColor": "var(--line)", "tickColor": "var(--line)", "labelLimit": 140},
    "legend": {**_TEXT, "labelColor": "var(--text)", "labelLimit": 140, "symbolSize": 60},
    "scale": {"bandPaddingInner": 0.08},
}
# Vega runs in V8, whose threads and memory this process must not have: a fork of it could not draw.
DRAWER = """\
import json, sys
import vl_convert
specs = json.load(sys.stdin)
json.dump({name: vl_convert.vegalite_to_svg(spec) for name, spec in specs.items()}, sys.stdout)
"""

SAID = {"field": "said", "type": "nominal"}  # what a mark is called, by the pointer and by screen readers: a text of its row


@dataclass
class Chart:
    """A chart with its caption. name: of letters and digits, its own in the page; svg: "" until it is drawn."""

    title: str
    name: str
    spec: dict[str, Any]
    svg: Markup = Markup("")


def draw(charts: Sequence[Chart]) -> str:
    """Draws all charts, in a process of its own; returns "", or why they could not be drawn.

    Texts in them are escaped by Vega; tests/test_page.py holds it to that.
    """
    if not charts:
        return ""
    command = [sys.executable, "-c", DRAWER]
    try:
        specs = json.dumps({chart.name: {**chart.spec, "config": THEME} for chart in charts}, allow_nan=False)
        done = subprocess.run(command, input=specs.encode(), capture_output=True, timeout=SECONDS, check=True)
        drawn = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else f"exit code {error.returncode}"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    for chart in charts:  # ids in them begin with their names, as a page holds several
        chart.svg = Markup(re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\g<1>{chart.name}-", drawn[chart.name]))
    return ""


def colour(names: Sequence[str], field: str = "variant", **settings: Any) -> dict[str, Any]:
    """Returns the encoding of a colour for each of `names`, which come again behind SERIES of them."""
    colours = [f"var(--s{place % SERIES})" for place in range(len(names))]
    return {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": colours}, "title": None, **settings}


def dash(names: Sequence[str], field: str = "variant") -> dict[str, Any]:
    """Returns the encoding of dashes that tells lines of one colour apart."""
    dashes = [DASHES[place // SERIES % len(DASHES)] for place in range(len(names))]
    return {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": dashes}, "legend": None}


def label_width(names: Sequence[str]) -> int:
    """Returns about how many pixels the longest of the labels of an axis takes."""
    return min(140, 6 * max(map(len, names), default=0)) + 16
