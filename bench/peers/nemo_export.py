"""NeMo's own `model.export()`, and onnxruntime's `quantize_dynamic` of it, as published conversions are made.

    python bench/peers/nemo_export.py --checkpoint X.nemo --work build/peers/export [--lookahead 6]

Writes WORK/fp32 and WORK/int8 for `bench/streaming.py --nemo-export`: encoder.onnx, decoder.onnx, spec.json. Weights of
MatMul nodes only are quantized, by tensor, which is what the published int8-dynamic holds (799 MB at 0.6B: NeMo's
pointwise convolutions stay Conv, and float).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nemoport.export.checkpoint import read_checkpoint
from nemoport.validate import nemo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--lookahead", type=int, default=6)
    options = parser.parse_args()
    checkpoint = read_checkpoint(options.checkpoint)
    fp32, int8 = options.work / "fp32", options.work / "int8"
    for folder in (fp32, int8):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps(checkpoint.spec.to_dict()))
    export(checkpoint, fp32, options.lookahead)
    quantize(fp32, int8)


def export(checkpoint, folder: Path, lookahead: int) -> None:
    model = nemo.restore(checkpoint)
    with nemo.quiet():
        model.encoder.set_default_att_context_size([checkpoint.spec.streaming.left_context_enc_frames, lookahead])
        model.set_export_config({"cache_support": "True"})
        model.export(str(folder / "x.onnx"), verbose=False)
    (folder / "encoder-x.onnx").rename(folder / "encoder.onnx")
    (folder / "decoder_joint-x.onnx").rename(folder / "decoder.onnx")


def quantize(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name, external in (("encoder.onnx", True), ("decoder.onnx", False)):
        quantize_dynamic(
            source / name,
            target / name,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            use_external_data_format=external,
            extra_options={"MatMulConstBOnly": True},
        )


if __name__ == "__main__":
    main()
