"""`nemoport oracle`: NeMo's own runs, which everything else is compared with."""

from __future__ import annotations

import argparse

from nemoport.cli.command import Command
from nemoport.cli.options import BUILD, CHOSEN, CORPUS, chosen


def run(options: argparse.Namespace) -> None:
    from nemoport.speech.corpus import read_corpus
    from nemoport.validate.oracle import record_oracle

    checkpoint = chosen(options)
    corpus = read_corpus(options.corpus, checkpoint.spec.frontend.sample_rate_hz)
    record_oracle(checkpoint, corpus, options.build, progress=options.progress)


COMMAND = Command(
    "oracle",
    "record NeMo's own streaming and offline runs",
    (*CHOSEN, BUILD, CORPUS),
    run,
    examples=("nemoport oracle --checkpoint my.nemo --build build/my --corpus eval.jsonl",),
    extras="validate",
)
