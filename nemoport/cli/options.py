"""The options that several subcommands share."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.cli.command import option
from nemoport.cli.registries import heads, judged
from nemoport.errors import UsageError

if TYPE_CHECKING:
    from nemoport.export.checkpoint import Checkpoint
    from nemoport.pipeline.plan import Wanted

CHECKPOINT_HELP = ".nemo file, folder of Hugging Face transformers, or Hub id org/name[@revision]"
CHECKPOINT = option("--checkpoint", required=True, help=CHECKPOINT_HELP)
BUILD = option("--build", required=True, type=Path, help="build folder of the checkpoint")
CORPUS = option("--corpus", required=True, type=Path, help="evaluation audio with transcripts: a NeMo manifest, or a folder")
CALIBRATION = option("--calibration", type=Path, help="calibration audio: a NeMo manifest, or a folder")
VARIANTS = option(
    "--variant", action="append", dest="variants", names=judged, help="of %(names)s; repeat for several; default: all built"
)
HEAD = option(
    "--head",
    names=heads,
    default="",
    help="of a hybrid model, one of %(names)s: ctc, or its transducer's, the default",
)
JSON = option("--json", action="store_true", help="print one JSON object")
WINDOWS = option(
    "--windows",
    metavar="S,S",
    help="seconds of the windows of an offline model, in targets of fixed shapes, such as 5,15,40; default: the target's",
)
PROFILE = option("--profile", help="one chunk, and the attention's lookahead in it, such as 1120ms/0")
CHOSEN = (CHECKPOINT, HEAD, PROFILE)


def names_in(text: str | None) -> tuple[str, ...]:
    """Returns the names of an option such as "fp16,int8-weight"."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def chosen(options: Namespace) -> Checkpoint:
    """Reads the checkpoint of the options CHOSEN. Raises CheckpointError, UsageError."""
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.export.profile import profiled

    return profiled(read_checkpoint(options.checkpoint, options.head), options.profile)


def window_seconds(text: str | None) -> list[int]:
    """Returns the value of WINDOWS. Raises UsageError for what are no whole numbers."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        expected = "whole numbers of seconds with commas between them, such as 5,15,40"
        raise UsageError("The windows cannot be read.", expected=expected, found=str(text), todo="correct --windows")
    return [int(part) for part in parts]


def wanted(options: Namespace) -> Wanted:
    """Returns what the options that `run` and `gate` share ask for."""
    from nemoport.pipeline.plan import Wanted

    return Wanted(
        corpus=options.corpus,
        calibration=options.calibration,
        precisions=names_in(options.precisions),
        targets=names_in(options.targets),
        caches=names_in(options.caches),
        quick=options.quick,
        jobs=options.jobs,
        head=options.head,
    )
