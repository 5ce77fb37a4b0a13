"""`nemoport package`: the variants that passed as a folder for the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, grouped, option
from nemoport.cli.options import BUILD, VARIANTS
from nemoport.cli.registries import layouts

DIST = option("--dist", required=True, type=Path, help="package folder to write; of several layouts one folder in it for each")
LAYOUT = option(
    "--layout",
    action="append",
    dest="layouts",
    names=layouts,
    help="of %(names)s; repeat for several, whose equal files become hard links; default: native, nemoport's own",
)
SHARD_BYTES = option(
    "--shard-bytes",
    metavar="SIZE",
    help="files of at most SIZE, such as 1.5G: onnx-asr: of fp32 again; web: of all",
)
CARD = grouped(
    "the model card",
    option("--license", help="SPDX id of the checkpoint's licence; known for the published base models"),
    option("--license-url", help="where its text is, for an id that is not known here"),
    option("--license-holder", help="whom to name, where the licence asks for it"),
    option("--base-model", help="Hub id of the checkpoint"),
    option("--language", help="BCP 47 code of what it recognises, such as en"),
)
NO_PLOT = option("--no-plot", action="store_true", help="no picture in the card")
BENCHMARK = grouped(
    "a benchmark of the Hub, where the gates ran on the whole of it",
    option("--eval-dataset", metavar="ORG/NAME[@REVISION]", help="a registered data set: .eval_results/NAME.yaml is written"),
    option("--task-id", help="of its eval.yaml"),
)


def run(options: argparse.Namespace) -> None:
    from nemoport.package.assemble import package_layouts
    from nemoport.package.eval_results import Benchmark
    from nemoport.package.shards import parse_bytes

    folders = package_layouts(
        options.build,
        options.dist,
        options.layouts or ["native"],
        variants=options.variants,
        licence=options.license,
        licence_url=options.license_url,
        licence_holder=options.license_holder,
        base_model=options.base_model,
        language=options.language,
        shard_bytes=parse_bytes(options.shard_bytes) if options.shard_bytes else None,
        benchmark=Benchmark.of(options.eval_dataset, options.task_id),
        with_plot=not options.no_plot,
        progress=options.progress,
    )
    print(*folders, sep="\n")


COMMAND = Command(
    "package",
    "lay out what passed for the Hub",
    (BUILD, DIST, VARIANTS, LAYOUT, SHARD_BYTES, NO_PLOT, *CARD, *BENCHMARK),
    run,
    examples=("nemoport package --build build/my --dist dist/my --license cc-by-4.0 --license-holder Me --language en",),
    extras="validate",
)
