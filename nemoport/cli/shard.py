"""`nemoport shard`: a graph's weights in several files."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemoport.cli.command import Command, option


def run(options: argparse.Namespace) -> None:
    from nemoport.package.shards import parse_bytes, shard

    for path in shard(options.graph, options.folder, parse_bytes(options.shard_bytes)):
        print(f"{path}: {path.stat().st_size} bytes")


COMMAND = Command(
    "shard",
    "repack a graph's weights into files that a browser can take",
    (
        option("graph", type=Path, help="an .onnx file with weights beside it"),
        option("folder", type=Path, help="to be written"),
        option("--shard-bytes", default="1.5G", metavar="SIZE", help="most of a file; default: %(default)s"),
    ),
    run,
    examples=("nemoport shard build/my/fp32/encoder_model.onnx shards --shard-bytes 1.5G",),
    extras="quantize",
)
