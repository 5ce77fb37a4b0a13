"""Draws what bench/streaming.py measured.

    python bench/plot.py FIGURES.jsonl bench/streaming.png

FIGURES.jsonl: of `streaming.py --json`. Left: milliseconds a chunk of each row of the first table (one stream), the limit
as a line on its bar. Right: times real time by number of streams, of the tables that differ from it in that only; the
last one measured counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    tables = [json.loads(line) for line in options.figures.read_text().splitlines()]
    first = tables[0]
    alike = [t for t in tables if (t["lookahead"], t["threads"]) == (first["lookahead"], first["threads"])]
    by_streams = {t["streams"]: t for t in alike}

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    rows = sorted(first["rows"], key=lambda row: -row["ms"])
    bars.barh([row["row"] for row in rows], [row["ms"] for row in rows], color="tab:blue")
    bars.bar_label(bars.containers[0], [f"{row['ms']:.0f}" for row in rows], padding=3)
    for i, row in enumerate(rows):
        if row["limit_ms"]:
            bars.plot([row["limit_ms"]] * 2, [i - 0.4, i + 0.4], color="black")
    bars.set_xlabel(f"ms a {first['chunk_ms']:.0f} ms chunk, one stream, {first['threads']} threads (black: limit)")
    for name in dict.fromkeys(row["row"] for t in by_streams.values() if t["streams"] > 1 for row in t["rows"]):
        points = [(n, next((r for r in t["rows"] if r["row"] == name), None)) for n, t in sorted(by_streams.items())]
        points = [(n, n * first["chunk_ms"] / r["ms"]) for n, r in points if r]
        lines.plot(*zip(*points, strict=True), marker="o", label=name)
    lines.set_xscale("log", base=2)
    lines.set_xticks(sorted(by_streams), sorted(by_streams))
    lines.set_xlabel("streams in one batch")
    lines.set_ylabel("times real time, all streams together")
    lines.legend()
    figure.suptitle(first["machine"])
    figure.savefig(options.image, dpi=110)


if __name__ == "__main__":
    main()
