"""`nemoport compare`: two packages, anybody's, on the same recordings."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from nemoport.cli.command import Command, option
from nemoport.cli.options import CORPUS, JSON
from nemoport.errors import CorpusError
from nemoport.text import columns


def run(options: argparse.Namespace) -> None:
    from nemoport.pipeline.compare import compare, lines_of, rows
    from nemoport.pipeline.side import open_side
    from nemoport.speech.corpus import read_corpus

    a, b = open_side(options.a, options.variant_a), open_side(options.b, options.variant_b)
    corpus = read_corpus(options.corpus, a.session.spec.frontend.sample_rate_hz)
    corpus = replace(corpus, utterances=corpus.utterances[: options.limit])
    if not corpus.utterances:
        todo = "check the manifest and --limit"
        raise CorpusError("There is nothing to compare on.", expected="recordings", found="none", todo=todo)
    found = compare(a, b, corpus, options.lookahead, options.progress)
    print(json.dumps(found.to_dict()) if options.json else "\n".join(lines_of(found, columns(rows(found)))))


FOLDER = "a package or build of nemoport, a variant's folder, anybody's folder of ONNX graphs, or Hub id of a native package"
COMMAND = Command(
    "compare",
    "two packages side by side: size, interfaces, frames, tokens, word errors, speed",
    (
        option("a", metavar="A", help=FOLDER),
        option("b", metavar="B", help="likewise"),
        CORPUS,
        option("--variant-a", help="of A: a variant's name, or a part of the name of the encoder's graph"),
        option("--variant-b", help="of B"),
        option("--lookahead", type=int, help="encoder frames of right context; default: the largest that both have"),
        option("--limit", type=int, help="the first so many recordings"),
        JSON,
    ),
    run,
    examples=(
        "nemoport compare dist/my downloaded/their-onnx --corpus eval.jsonl --limit 50",
        "nemoport compare build/my build/my --variant-a fp32 --variant-b int8-weight --corpus eval.jsonl --json",
    ),
    extras="validate",
)
