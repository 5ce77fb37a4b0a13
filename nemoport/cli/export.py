"""`nemoport export`: a checkpoint to the graphs of a runtime."""

from __future__ import annotations

import argparse

from nemoport.cli.command import Command, option
from nemoport.cli.options import BUILD, CALIBRATION, CHOSEN, WINDOWS, chosen, window_seconds
from nemoport.cli.registries import target_precisions, targets

CACHES = option(
    "--caches",
    "--contract",
    dest="caches",
    choices=("nemo", "kv"),
    default="nemo",
    help="nemo: NeMo's caches; kv: projected ones, the fast path",
)
TARGET = option("--target", default="onnx", names=targets, help="%(names)s; default: %(default)s")
PRECISION = option(
    "--precision", default="fp32", names=target_precisions, help="one that the target has, of %(names)s; onnx has fp32 only"
)


def run(options: argparse.Namespace) -> None:
    from nemoport.export.targets import export_target

    artifact = export_target(
        chosen(options),
        options.build,
        options.target,
        options.precision,
        options.calibration,
        caches=options.caches,
        windows_s=window_seconds(options.windows),
        progress=options.progress,
    )
    print(artifact.folder)


COMMAND = Command(
    "export",
    "export the checkpoint to fp32 ONNX graphs, or to another runtime's",
    (*CHOSEN, BUILD, CACHES, WINDOWS, TARGET, PRECISION, CALIBRATION),
    run,
    examples=(
        "nemoport export --checkpoint my.nemo --build build/my --caches kv",
        "nemoport export --checkpoint my.nemo --build build/my --target openvino --precision int8",
        "nemoport export --checkpoint my-offline.nemo --build build/my --target litert --windows 10,30",
    ),
    extras="export",
)
