"""onnx-asr on our artifacts and on NeMo's own export quantized as its published models are, interleaved in one run.

    python bench/peers/parakeet.py --checkpoint X.nemo --package DIST --corpus MANIFEST --work peer [--build BUILD]

DIST: a package of the layout onnx-asr. The other rows are NeMo's `model.export()`, and `quantize_dynamic` of it with
u8 weights by tensor. onnx-asr's session options are its defaults but for the threads. Every round each row hears the same
clip; the table has the median of the ratios to the first row, and word error rates over all clips. --build: what DIST was
made from; tells how many transcripts are nemoport's own too, with its front end and with onnx-asr's mel.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_asr
import onnxruntime

from nemoport.decode import GreedyState, greedy
from nemoport.export.checkpoint import read_checkpoint
from nemoport.graph_file import external_tensors
from nemoport.package.layouts.onnx_asr import graphs, suffix_of
from nemoport.recognizer import Recognizer
from nemoport.score import count_all, wer_percent
from nemoport.speech.corpus import read_corpus
from nemoport.validate import nemo
from nemoport.variant import FP32, instruction_set

PARTS = ("encoder", "decoder_joint")
PAUSE_S = 0.05  # else the threads of the row before are still spinning


def export(checkpoint, work: Path, package: Path) -> Path:
    """The peer's folder: fp32, and int8 beside it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = work / "nemo-export"
    if folder.is_dir():
        return folder
    partial = work / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model = nemo.restore(checkpoint)
    with nemo.quiet():
        model.export(str(partial / "x.onnx"), verbose=False)
    for part in PARTS:
        (partial / f"{part}-x.onnx").rename(partial / f"{part}-model.onnx")
        quantize_dynamic(partial / f"{part}-model.onnx", partial / f"{part}-model.int8.onnx", weight_type=QuantType.QUInt8)
    for name in ("vocab.txt", "config.json"):
        shutil.copy(package / name, partial / name)
    partial.rename(folder)
    return folder


def same_transcripts(model, artifact: Path, utterances, texts: list[str], threads: int) -> tuple[int, int]:
    """Transcripts of onnx-asr's, `texts`, that nemoport gives too, but for a space at the end, which onnx-asr cuts off: from the
    audio; from the mel that onnx-asr made of it."""
    ours = Recognizer.open(artifact, threads=threads)
    own = from_mel = 0
    for utterance, text in zip(utterances, texts, strict=True):
        samples = utterance.samples()
        own += next(ours.transcribe([("", samples)])).text.strip() == text
        mel = model.asr._preprocessor(samples[None], np.array([len(samples)]))
        frames, lengths, _ = ours.session.encode(*mel, ours.session.initial_state(1))
        state = GreedyState.initial(ours.session.spec.decoding)
        greedy(ours.session, frames, lengths, [state])
        from_mel += ours.text(state.tokens).strip() == text
    return own, from_mel


def outside(graph: Path) -> int:
    """Bytes of weights in other files."""
    return sum(tensor.bytes for tensor in external_tensors(onnx.load(graph, load_external_data=False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--build", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    checkpoint = read_checkpoint(options.checkpoint)
    peer = export(checkpoint, options.work, options.package)
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    rows = {}
    for title, folder in (("NeMo export()", peer), ("nemoport", options.package)):
        suffixes = {p.name.removeprefix("encoder-model").removesuffix(".onnx").strip(".") for p in folder.glob("encoder*.onnx")}
        for suffix in sorted(suffixes):
            model = onnx_asr.load_model("nemo-conformer-tdt", folder, quantization=suffix or None, sess_options=session)
            size = sum(graph.stat().st_size + outside(graph) for graph in graphs(folder, suffix or FP32))
            rows[f"{title}, {suffix or 'fp32'}"] = (model, size)
    corpus = read_corpus(options.corpus, checkpoint.spec.frontend.sample_rate_hz)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    texts: dict[str, list[str]] = {name: [] for name in rows}
    for utterance in corpus.utterances:
        samples = utterance.samples()
        for name, (model, _) in rows.items():
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            texts[name].append(model.recognize(samples))
            seconds[name].append(time.perf_counter() - started)
    references, (first, *_) = [u.text for u in corpus.utterances], rows
    print(f"{len(references)} clips, {corpus.seconds:.0f} s, {options.threads} threads; {instruction_set()}, "
          f"onnxruntime {onnxruntime.__version__}\n")  # fmt: skip
    print("| row | MB | WER % | times real time | speed, first row = 1 |\n|---|---|---|---|---|")
    for name, (_, size) in rows.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[first], seconds[name], strict=True))
        wer = wer_percent(count_all(references, texts[name]))
        print(f"| {name} | {size / 1e6:.1f} | {wer:.2f} | {corpus.seconds / sum(seconds[name]):.1f} | {ratio:.2f} |")
    if options.build is None:
        return
    print("\n| row | transcripts | nemoport's own | nemoport's of the same mel |\n|---|---|---|---|")
    for variant in (path.name for path in sorted(options.build.iterdir()) if graphs(options.package, path.name)[0].is_file()):
        name = f"nemoport, {suffix_of(variant).strip('.') or 'fp32'}"
        own, from_mel = same_transcripts(rows[name][0], options.build / variant, corpus.utterances, texts[name], options.threads)
        print(f"| {name} | {len(references)} | {own} | {from_mel} |")


if __name__ == "__main__":
    main()
