"""Which part costs what: every encoder with every decoder, word errors beside NeMo's on the audio of accuracy.py.

    python bench/swap.py --build build/accuracy [--checkpoint reference] [--threads N]

Decoder and joint are one fused graph here, decoder_joint, so what can be swapped is two graphs. Its forms: fp32; halved,
which all quantized variants have (weights in fp16, arithmetic in f32); and int8, made by onnxruntime's quantize_dynamic
of every MatMul and LSTM by channel, to be measured only. Run bench/accuracy.py first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import accuracy
import further
import pooled

from nemoport.artifact import DECODER, Artifact
from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.quantize.storage import halve_decoder
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import Corpus, read_corpus
from nemoport.validate.context import Context
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import Oracle, record_oracle
from nemoport.validate.runs import CorpusRunner

OWN = {"fp32": "fp32"}  # of an encoder: the decoder_joint beside it
ENCODERS = ("fp32", "int8-dynamic", "int8-smoothquant", "int8-weight", "int4-weight")


def decoders(fp32: Artifact, scratch: Path) -> dict[str, tuple[Path, int]]:
    """Name -> (graph, bytes of it and of its .data file)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    halved, quantized = scratch / "halved", scratch / "int8"
    for folder in (halved, quantized):
        folder.mkdir()
    halve_decoder(fp32, halved)
    quantize_dynamic(
        fp32.decoder,
        quantized / DECODER,
        op_types_to_quantize=["MatMul", "Gemm", "LSTM"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    graphs = {"fp32": fp32.decoder, "halved": halved / DECODER, "int8": quantized / DECODER}
    return {name: (path, sum(f.stat().st_size for f in path.parent.glob(f"{DECODER}*"))) for name, path in graphs.items()}


def rows(
    checkpoint: Checkpoint, build: Path, corpus: Corpus, manifests: Sequence[Path], oracle: Oracle, threads: int, scratch: Path
) -> Iterator[tuple[str, ...]]:
    yield ("encoder", "decoder_joint", "decoder MB", "WER", "points above NeMo (95 %)", "tokens other")
    found = decoders(Artifact.open(build / "fp32"), scratch)
    fp32 = Context(build / "fp32", limits_of("fp32"), checkpoint, corpus, oracle, threads=threads)
    parts = further.parts(manifests, fp32)
    for encoder in ENCODERS:
        for decoder, (path, size) in found.items():
            limits = limits_of(encoder)
            if decoder == "int8":  # one scale a tensor, so that streams in a batch would round each other
                limits = replace(limits, streams=1)
            context = Context(build / encoder, limits, checkpoint, corpus, oracle, threads=threads)
            if decoder == OWN.get(encoder, "halved"):  # as it is built: measured by accuracy.py
                figures = pooled.measure(context, fp32, parts, committed=True)
            else:
                artifact = context.artifact
                session = OnnxSession(artifact.spec, artifact.encoder, path, threads=threads)
                context.runner = CorpusRunner.open(artifact, session)
                figures = pooled.measure(context, fp32, parts, committed=True, run=further.emitted)
            above, other = figures.above, f"{100 * figures.tokens_other:.2f} %"
            spread = f"{above.value:+.2f} ({above.lower:+.2f} to {above.upper:+.2f})"
            yield encoder, decoder, f"{size / 1e6:.2f}", f"{figures.wer:.2f}", spread, other


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the table of swapped components.")
    parser.add_argument("--build", type=Path, required=True, help="the folder of bench/accuracy.py")
    parser.add_argument("--checkpoint", default="reference", help="one of its checkpoints")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    (case,) = accuracy.cases(args.build, [args.checkpoint])
    checkpoint, build = read_checkpoint(str(case.checkpoint)), case.build
    rate_hz = checkpoint.spec.frontend.sample_rate_hz
    corpus = read_corpus(accuracy.REFERENCE / "audio" / "eval.jsonl", rate_hz)
    manifests = sorted(args.build.glob("further-*/part-*.jsonl"))
    oracle = record_oracle(checkpoint, corpus, build)
    with TemporaryDirectory() as scratch:
        for i, row in enumerate(rows(checkpoint, build, corpus, manifests, oracle, args.threads, Path(scratch))):
            print("| " + " | ".join(row) + " |", flush=True)
            if i == 0:
                print("|" + "---|" * len(row), flush=True)


if __name__ == "__main__":
    main()
