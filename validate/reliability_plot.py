"""Draws the share of words that are right by their confidence, as the gate `words` recorded it: an SVG for the report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from nemoport.validate.calibration_error import BINS
from nemoport.validate.gate_result import GateResult

PLOT = "confidence.svg"
RELIABILITY = "right at confidence "  # prefix of the cases of the gate, which its bin follows
_SIDE, _LEFT, _TOP, _LINE = 320, 50, 16, 18
_COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#4a4e69")  # told apart by dashes too beyond these


def reliability_plot(results: Mapping[str, Sequence[GateResult]]) -> str:
    """Returns an SVG with a line a variant, or "" where none has a figure. results: variant -> its results."""
    lines = {variant: points for variant, found in results.items() if (points := points_of(found))}
    if not lines:
        return ""
    height = max(_SIDE, _LINE * len(lines)) + _TOP + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _SIDE + 230}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888"/>',
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#888" stroke-dasharray="3 4"/>',
    ]
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{_x(tick)}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{_x(0.5)}" y="{_TOP + _SIDE + 34}" text-anchor="middle">confidence of a word</text>')
    middle = _y(0.5)
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">share right</text>')
    for number, (variant, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = "" if number < len(_COLOURS) else f' stroke-dasharray="{2 + 2 * (number // len(_COLOURS))} 3"'
        path = " ".join(f"{_x(at):.1f},{_y(share):.1f}" for at, share, _ in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        parts += [
            f'<circle cx="{_x(at):.1f}" cy="{_y(share):.1f}" r="2.5" fill="{colour}"><title>{html.escape(variant)}: {n} words'
            "</title></circle>"
            for at, share, n in points
        ]
        y = _TOP + 10 + _LINE * number
        x = _LEFT + _SIDE + 16
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 28}" y="{y}">{html.escape(variant)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def points_of(found: Sequence[GateResult]) -> list[tuple[float, float, int]]:
    """Returns (middle of a bin, share right, words in it), of the bins that hold a word."""
    return [
        (float(r.case.removeprefix(RELIABILITY).split(" ")[0]) + 0.5 / BINS, r.measured, r.n)
        for r in found
        if r.case.startswith(RELIABILITY) and r.measured is not None
    ]


def _x(value: float) -> float:
    return _LEFT + _SIDE * value


def _y(value: float) -> float:
    return _TOP + _SIDE * (1 - value)
