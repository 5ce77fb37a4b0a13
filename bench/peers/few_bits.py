"""Weights in few bits on the same graph and speech: ggml's formats, by its own rounding, beside variants that are built.

    python bench/peers/few_bits.py --build BUILD --environment build/peers/ggml --corpus M.jsonl [M.jsonl ...]
        [--variants int4-mixed int4-weight] [--calibration M.jsonl] [--lookahead 6]

BUILD: a build folder with fp32 and the variants. ENVIRONMENT: the one of gguf.py, whose crispasr has ggml's library. The layers'
weights become what a format makes of them, dequantized, in the fp32 graph, so that nothing else differs: activations stay f32
there, which the variants round to 8 bits. Super-blocks have 256 input channels; rows that are no whole number of those are
filled up with zeros, which are not counted. "weighted": with the mean square of each input channel over CALIBRATION, which is
ggml's importance matrix. q4_k_m: transcribe.cpp's, linear_out in q8_0 and pointwise convolutions in f16.

Printed: bits of a weight of the layers, scales included; dB of the encoder's frames against fp32's; tokens that differ from
fp32's; WER, and points above fp32 with their 95 % interval, paired bootstrap over utterances.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from gguf_quantize import KINDS, Quantizer, library

from nemoport.artifact import Artifact
from nemoport.quantize import int4_weight
from nemoport.quantize.graph import Weights, load_typed
from nemoport.quantize.smoothing import sites
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.score import count_all, wer_difference, wer_percent
from nemoport.speech.corpus import Utterance, read_corpus
from nemoport.stream import Stream, advance
from nemoport.tokens import detokenize, read_tokens

STREAMS = 16
MIXTURES = {"q4_k_m": ("q4_k", "q8_0"), "q5_k_m": ("q5_k", "q8_0")}  # matrices; behind attention
FORMATS = ("q4_0", "q5_0", "q8_0", "q4_k", "q5_k", "q6_k", *MIXTURES)


@dataclass(frozen=True)
class Run:
    """frames: of the encoder, f32 [frames, d_model]; tokens and text of each utterance."""

    frames: np.ndarray
    tokens: list[list[int]]
    texts: list[str]


def transcribed(
    artifact: Artifact, utterances: Sequence[Utterance], lookahead: int, weights: Mapping[str, np.ndarray] | None = None
) -> Run:
    """weights: initializers in place of the encoder's own."""
    session = OnnxSession(artifact.spec, artifact.encoder, artifact.decoder, threads=1, encoder_weights=weights)
    filterbank, pieces = artifact.filterbank(), read_tokens(artifact.shared / "tokens.txt")
    frames: list[list[np.ndarray]] = []
    tokens: list[list[int]] = []
    for at in range(0, len(utterances), STREAMS):
        together = utterances[at : at + STREAMS]
        streams = [Stream(session, filterbank, lookahead) for _ in together]
        made: list[list[np.ndarray]] = [[] for _ in together]
        for stream, utterance in zip(streams, together, strict=True):
            stream.push(utterance.samples())
            stream.close()
        while running := [i for i, stream in enumerate(streams) if stream.chunks]:
            for i, one in zip(running, advance(session, [streams[i] for i in running]), strict=True):
                made[i].append(one)
        frames += made
        tokens += [list(stream.tokens) for stream in streams]
    return Run(np.concatenate([f for one in frames for f in one]), tokens, [detokenize(pieces, one) for one in tokens])


def row(name: str, bits: float, run: Run, fp32: Run, references: Sequence[str]) -> str:
    from rapidfuzz.distance import Levenshtein

    noise = np.square(run.frames - fp32.frames).sum(dtype=np.float64) / np.square(fp32.frames).sum(dtype=np.float64)
    other = sum(map(Levenshtein.distance, fp32.tokens, run.tokens)) / sum(map(len, fp32.tokens))
    ours, theirs = ([[one] for one in count_all(references, texts)] for texts in (run.texts, fp32.texts))
    above = wer_difference(ours, theirs)
    decibels = f"{-10 * np.log10(noise):.1f}" if noise else ""
    wer = wer_percent([one for of_one in ours for one in of_one])
    return (
        f"| {name} | {bits:.2f} | {decibels} | {100 * other:.2f} % | {wer:.2f} "
        f"| {above.value:+.2f} ({above.lower:+.2f} to {above.upper:+.2f}) |"
    )


def bits_of(encoder: Path, weights: int) -> float:
    """Bits of a weight of the layers in a variant's encoder: integers, scales and zero points. weights: their number."""
    model = onnx.load(encoder, load_external_data=False)
    kinds = onnx.TensorProto
    bits = {kinds.INT4: 4, kinds.INT8: 8, kinds.FLOAT16: 16, kinds.FLOAT: 32}
    initializers = {i.name.removesuffix(".half"): i for i in model.graph.initializer}
    stored = [initializers[name] for n in model.graph.node if n.op_type == "DequantizeLinear" for name in n.input]
    return sum(float(np.prod(i.dims)) * bits[i.data_type] for i in stored) / weights


class Formats:
    """The layers' weights of an fp32 artifact in ggml's formats. grams: of `int4_weight.grams_of`, or none."""

    def __init__(self, artifact: Artifact, quantizer: Quantizer, grams: Mapping[str, np.ndarray]):
        model = load_typed(artifact.encoder)
        self._weights, self._quantizer = Weights(model), quantizer
        self._importance = {
            name: np.diag(grams[site.tensor]) / np.diag(grams[site.tensor]).mean() if grams else None
            for site in sites(model)
            for name in site.matmuls
        }
        self.count = sum(self._weights.of(name).size for name in self._importance)

    def made(self, name: str, weighted: bool) -> tuple[float, dict[str, np.ndarray]]:
        """Bits of a weight, and initializer -> f32 [in, out]."""
        bits, found = 0.0, {}
        for node, importance in self._importance.items():
            kind = name
            if name in MIXTURES:
                kind = "f16" if "/pointwise_conv" in node else MIXTURES[name]["/linear_out/" in node]
            weight = self._weights.of(node)
            initializer = self._weights.node(node).input[1]
            if kind == "f16":
                bits, found[initializer] = bits + 16 * weight.size, weight.astype(np.float16).astype(np.float32)
                continue
            _, block, size = KINDS[kind]
            rows, used = np.zeros((weight.shape[1], -(-len(weight) // block) * block), np.float32), None
            rows[:, : len(weight)] = weight.T
            if weighted and importance is not None:
                used = np.zeros(rows.shape[1], np.float32)
                used[: len(weight)] = importance
            found[initializer] = self._quantizer.values(kind, rows, used)[:, : len(weight)].T.copy()
            bits += 8 * size / block * weight.size
        return bits / self.count, found


def rows(options: argparse.Namespace) -> Iterator[str]:
    fp32 = Artifact.open(options.build / "fp32")
    rate_hz = fp32.spec.frontend.sample_rate_hz
    utterances = [u for manifest in options.corpus for u in read_corpus(manifest, rate_hz).utterances][:: options.every]
    references, lookahead = [u.text for u in utterances], options.lookahead
    grams: Mapping[str, np.ndarray] = {}
    if options.calibration:
        parameters = int4_weight.Parameters()
        grams = int4_weight.grams_of(fp32, parameters, read_corpus(options.calibration, rate_hz), lambda line: None)
    formats = Formats(fp32, Quantizer(library(options.environment)), grams)
    base = transcribed(fp32, utterances, lookahead)
    yield f"{len(utterances)} utterances, {sum(len(text.split()) for text in references)} words, lookahead {lookahead}.\n"
    yield "| weights | bits | dB | tokens other | WER | points above fp32 (95 %) |"
    yield "|---|---|---|---|---|---|"
    yield row("fp32", 32, base, base, references)
    for variant in options.variants:
        artifact = Artifact.open(options.build / variant)
        yield row(
            variant, bits_of(artifact.encoder, formats.count), transcribed(artifact, utterances, lookahead), base, references
        )
    for name in options.formats:
        for weighted in (False, True) if grams and name != "q8_0" else (False,):
            bits, weights = formats.made(name, weighted)
            yield row(
                f"{name}{', weighted' * weighted}", bits, transcribed(fp32, utterances, lookahead, weights), base, references
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares weights in few bits.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, nargs="+", required=True)
    parser.add_argument("--lookahead", type=int, default=6)
    parser.add_argument("--every", type=int, default=1, help="of the utterances")
    parser.add_argument("--variants", nargs="*", default=["int4-mixed", "int4-weight"])
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--calibration", type=Path)
    for line in rows(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
