"""`nemoport score`: scores stored texts, as often as one likes: it needs no audio."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemoport.cli.command import Command, option
from nemoport.cli.registries import scorers
from nemoport.text import columns, printable

if TYPE_CHECKING:
    from nemoport.evaluation.scorers import Scorer

DEFAULT_SCORERS = ("wer",)
SCORER = option("--scorer", action="append", metavar="NAME", names=scorers, help="%(names)s; repeat for several; default: wer")
BY = option("--by", action="append", default=[], metavar="FIELD", help="scores by this field of the data set, beside language")
LEADERBOARD = option("--leaderboard", type=Path, metavar="FOLDER", help="clone of huggingface/open_asr_leaderboard, for open-asr")


def run(options: argparse.Namespace) -> None:
    from nemoport.evaluation.scorers import scorer

    chosen = [scorer(name, options.leaderboard) for name in options.scorer or DEFAULT_SCORERS]
    print_scores(options.results, chosen, options.by, as_json=options.json)


def print_scores(results: Path, scorers: Sequence[Scorer], by: Sequence[str], *, as_json: bool) -> None:
    """Scores, and prints a table, or an object of JSON a line."""
    from nemoport.evaluation.scoring import LANGUAGE, score

    for one in scorers:
        found = score(results, one, [LANGUAGE, *(name for name in by if name != LANGUAGE)])
        print(json.dumps(found, sort_keys=True) if as_json else _table(found))


def _table(found: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    left_out = ", ".join(f"{found[key]} {key.replace('_', ' ')}" for key in ("failed", "without_reference") if found[key])
    tallies = {"all": found["overall"]}
    tallies |= {f"{name} {value}": tally for name, of in found["groups"].items() for value, tally in of.items()}
    rows = [(f"  {name}", _figures(tally, found["unit"])) for name, tally in tallies.items()]
    head = f"{found['scorer']}, version {found['version']} ({libraries}){', left out: ' + left_out if left_out else ''}"
    return printable("\n".join([head, *columns(rows)]))


def _figures(tally: dict[str, Any], unit: str) -> str:
    if tally["percent"] is None:
        return f"no {unit} in {tally['utterances']} utterances"
    errors = f"{tally['substitutions']} substituted, {tally['deletions']} deleted, {tally['insertions']} inserted"
    rate = f"{tally['percent']:6.2f} % [{tally['lower']:.2f}, {tally['upper']:.2f}]"
    return f"{rate} of {tally['words']} {unit} in {tally['utterances']} utterances: {errors}"


COMMAND = Command(
    "score",
    "score what `nemoport evaluate` has stored",
    (
        option("results", type=Path, help="folder that `nemoport evaluate` wrote"),
        SCORER,
        BY,
        LEADERBOARD,
        option("--json", action="store_true", help="an object for each scorer, as scores/NAME.json has it"),
    ),
    run,
    examples=(
        "nemoport score results/eval --scorer wer --scorer cer --by speaker",
        "nemoport score results/eval --scorer open-asr --leaderboard open_asr_leaderboard",
    ),
    extras="evaluate",
)
