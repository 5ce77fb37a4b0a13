"""Puts the page together: sections into the template, hashes of its script and style into its policy, the size into its foot."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nemoport.files import write_bytes
from nemoport.validate.page.changes import FIGURES_TAG, changes, figures_of, read_figures
from nemoport.validate.page.charts import Chart, draw
from nemoport.validate.page.clips import MOST_BYTES
from nemoport.validate.page.costs import costs
from nemoport.validate.page.differences import differences
from nemoport.validate.page.rates import word_errors
from nemoport.validate.page.sources import DIFFERENCE, POOLED, first_seen, read_judged
from nemoport.validate.page.streams import by_minute, confidence, drift, sensitivity

PAGE = "report.html"
FOLDER = Path(__file__).parent
EVIDENCE = 1500  # characters of a figure's evidence
NONE = "\u2013"
SIZE = Markup("<page-size>")  # filled in when it is known; texts are escaped, so none can hold it


def write_page(build: Path, out: Path | None = None, against: Path | None = None) -> Path:
    """Writes the page of a build's results, by default build/results/report.html, and returns its path.

    against: an earlier report.html, or a build folder, to compare with. Raises ArtifactError where there are no results or a
    file cannot be read, OutputError.
    """
    before = read_figures(against) if against else None  # first: it may be the file that is written
    judged = read_judged(build)
    now = figures_of(judged)
    sections = {
        "name": build.resolve().name,
        "judged": judged,
        "gates": first_seen([*(one.required for one in judged), *(one.gates for one in judged)]),
        "audio": first_seen([r.evidence] for one in judged if (r := one.figure("wer", f"{POOLED}{DIFFERENCE}"))),
        "oracles": first_seen([r.oracle_digest for r in one.results[:1]] for one in judged),
        "judges": first_seen([r.judge_digest for r in one.results[:1]] for one in judged),
        "errors": word_errors(judged),
        "costs": costs(judged),
        "minutes": by_minute(judged),
        "drift": drift(judged),
        "confidence": confidence(judged),
        "sensitivity": sensitivity(build),
        "differences": differences(judged),
        "changes": changes(before, now) if before else None,
        "against": against.name if against else "",
        "held": Markup(_json_in_html(now)),
    }
    path = out or build / "results" / PAGE
    write_bytes(path, _rendered(sections).encode("utf-8", "replace"))  # half a surrogate pair, in a transcript, has no encoding
    return path


def _rendered(sections: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "clip": clip}
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    rendered = environment.get_template("template.html").render(
        **sections,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
        figures_tag=Markup(FIGURES_TAG),
        undrawn=draw(_charts(sections)),
        most_audio=f"{MOST_BYTES / 1e6:.0f} MB",
        dash=NONE,
        size=SIZE,
    )
    return rendered.replace(SIZE, f"{len(rendered.encode('utf-8', 'replace')) / 1e6:.1f} MB")


def _charts(sections: dict[str, Any]) -> list[Chart]:
    """Every chart of the page."""
    of = [section["charts"] for section in sections.values() if isinstance(section, dict) and "charts" in section]
    return [chart for charts in (*of, sections["drift"]) for chart in charts]


def policy(style: str, script: str) -> str:
    """Returns the Content-Security-Policy: this style, this script, audio that is in the page, and nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    allowed = f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; media-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def figure(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """Returns a number as people read it; a dash for none."""
    if value is None:
        return NONE
    return f"{value:{form}}{unit}" if math.isfinite(value) else str(value)


def clip(text: str, most: int = EVIDENCE) -> str:
    """Returns the beginning of a text that is longer than `most` characters."""
    return text if len(text) <= most else f"{text[:most]} ..."


def _json_in_html(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
