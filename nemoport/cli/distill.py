"""`nemoport distill`: trains the encoder's weights in 2 bits towards the checkpoint itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option
from nemoport.cli.options import CHECKPOINT_HELP, HEAD


def run(options: argparse.Namespace) -> None:
    from nemoport.distill.checked import distill
    from nemoport.distill.settings import Settings
    from nemoport.export.checkpoint import read_checkpoint

    settings = Settings(
        steps=options.steps,
        high_share=options.high_share,
        batch_seconds=options.batch_seconds,
        row_seconds=options.row_seconds,
        noisy_share=options.noisy_share,
        rate=options.rate,
        bfloat16=options.bfloat16,
        seed=options.seed,
    )
    checkpoint = read_checkpoint(options.checkpoint, options.head)
    print(
        distill(
            checkpoint, options.audio, options.out, settings, options.device, resume=options.resume, progress=options.progress
        )
    )


COMMAND = Command(
    "distill",
    "train the weights in 2 bits towards the checkpoint itself, on audio without texts",
    (
        option("checkpoint", help=CHECKPOINT_HELP),
        HEAD,
        option("--audio", required=True, type=Path, help="speech: a folder, or a NeMo manifest; texts are not used"),
        option("--out", required=True, type=Path, help="folder of the student and of the state of training"),
        option("--steps", type=int, default=20000, help="of training, from the first on; default: %(default)s"),
        option("--resume", action="store_true", help="go on with the training in --out"),
        option("--device", default="cpu", help="cpu, or one that torch has, such as cuda; default: %(default)s"),
        option("--bfloat16", action="store_true", help="multiply in bfloat16, where the processor or GPU has it: faster"),
        option("--high-share", type=float, default=0.32, help="share of the weights that stay in 4 bits; default: %(default)s"),
        option("--batch-seconds", type=float, default=48.0, help="audio of a step; default: %(default)s"),
        option("--row-seconds", type=float, default=12.0, help="audio of one row of a step; default: %(default)s"),
        option("--noisy-share", type=float, default=0.5, help="share of the rows made lower or noisy; default: %(default)s"),
        option("--rate", type=float, default=0.04, help="of learning, whatever the model's size; default: %(default)s"),
        option("--seed", type=int, default=0, help="of what is drawn; default: %(default)s"),
    ),
    run,
    examples=(
        "nemoport distill my.nemo --audio speech/ --out student --steps 2000",
        "nemoport distill my.nemo --audio speech/ --out student --steps 4000 --resume",
        "nemoport distill nvidia/nemotron-speech-streaming-en-0.6b --audio speech/ --out student --device cuda --bfloat16",
    ),
    extras="export,quantize",
)
