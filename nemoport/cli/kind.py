"""`nemoport kind`: which kind of model a checkpoint holds, for the Makefile and other scripts."""

from __future__ import annotations

import argparse
import json

from nemoport.cli.command import Command, option
from nemoport.cli.options import CHECKPOINT_HELP, HEAD, JSON


def run(options: argparse.Namespace) -> None:
    from nemoport.export.checkpoint import checkpoint_kind

    kind = checkpoint_kind(options.checkpoint, options.head)
    print(json.dumps({"kind": kind}) if options.json else kind)


COMMAND = Command(
    "kind",
    "print the kind of a checkpoint: streaming-rnnt, offline-tdt, ...",
    (
        option("checkpoint", help=CHECKPOINT_HELP),
        HEAD,
        JSON,
    ),
    run,
    examples=("nemoport kind my.nemo",),
    extras="export",
)
