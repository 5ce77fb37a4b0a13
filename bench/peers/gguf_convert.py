"""Writes the GGUF files of CrispASR and of transcribe.cpp from a checkpoint, without their converters and without a network.

    python bench/peers/gguf_convert.py X.nemo --out FOLDER --file transcribe-cpp:q8_0 --file crispasr:q4_k

Writes FOLDER/<peer>-<precision>.gguf and prints the size of each. Precisions: transcribe-cpp f32, q4_0, q8_0, q6_k, q5_k_m,
q4_k_m; crispasr f32, f16, q2_k, q3_k, q4_0, q4_k, q5_k, q6_k, q8_0. `make peers` makes the environment whose ggml rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import environments
import gguf_file
import gguf_layouts
import gguf_quantize

from nemoport.export.checkpoint import Checkpoint, read_checkpoint


def convert(checkpoint: Checkpoint, out: Path, file: str) -> Path:
    """Writes a file, `peer:precision`."""
    peer, _, precision = file.partition(":")
    metadata, tensors = gguf_layouts.LAYOUTS[peer](checkpoint, peer == "crispasr" and precision != "f32")
    if precision not in ("f32", "f16"):
        quantizer = gguf_quantize.Quantizer(gguf_quantize.library(environments.FOLDERS["ggml"]))
        tensors = gguf_quantize.quantized(peer, tensors, precision, quantizer)
    path = out / f"{peer}-{precision}.gguf"
    gguf_file.write(path, metadata, tensors)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--file", action="append", dest="files", required=True, metavar="PEER:PRECISION", help="repeat for several"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = read_checkpoint(options.checkpoint)
    for file in options.files:
        path = convert(checkpoint, options.out, file)
        print(f"{path.stat().st_size / 1e6:7.1f} MB {path}", flush=True)


if __name__ == "__main__":
    main()
