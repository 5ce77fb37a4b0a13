"""Words that NeMo keeps and a variant loses, and words that it adds, where recognisers lose and invent them.

    python bench/nothing_lost.py --build build/streaming-en --checkpoint reference/checkpoints/streaming-en.nemo \\
        --speech reference/audio/eval.jsonl [--variants fp32 kv-int8-weight ...] [--words 500] [--peers fp32 int8-dynamic]

Isolated words, speech clipped at its first sample and within its first word, 0 to 30 s of zeros or faint noise around speech,
silence, hum, tones, white and pink noise (edge_audio.py), at every lookahead, by both flush rules. NeMo transcribes the same:
offline for the flush rule "full", by its streaming buffer for "nemo". A cell is `lost / added / other (recordings)`: words of
NeMo's in whose place is none, words in whose place NeMo has none, other words, and recordings whose tokens (of a peer: whose
text) are not NeMo's. Then packets of 1 ms to 5 s: recordings whose tokens are not those of the whole. --peers: variants that
sherpa-onnx or onnx-asr run, in packages of this project's layouts. Exit code 1 where fp32 is not NeMo's to the token, or
packets change a token.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import edge_audio
import numpy as np

from nemoport.export.checkpoint import read_checkpoint
from nemoport.markdown import table
from nemoport.package.layouts import onnx_asr as onnx_asr_layout
from nemoport.package.layouts import sherpa_onnx as sherpa_layout
from nemoport.recognizer import Recognizer
from nemoport.score import count_words
from nemoport.speech.corpus import Corpus, Utterance, prompts
from nemoport.tokens import split_tags
from nemoport.validate.oracle import OFFLINE, STREAMING, Oracle, Record, record_runs
from nemoport.variant import FP32

PACKETS_MS = (1, 10, 37, 100, 1000, 5000)
KINDS = (*edge_audio.SPOKEN, *edge_audio.SOUNDS)
Transcripts = list[tuple[tuple[int, ...], str]]  # tokens, none of a peer; text


@dataclass(frozen=True)
class Setup:
    """kinds: of each utterance of the corpus."""

    build: Path
    corpus: Corpus
    kinds: list[str]
    oracle: Oracle
    prompted: bool  # the model takes a language


def opened(setup: Setup, variant: str, lookahead: int | None = None, flush: str = "full") -> Recognizer:
    language = next((u.prompt_language for u in setup.corpus.utterances if setup.prompted), None)
    return Recognizer.open(setup.build / variant, lookahead, flush=flush, threads=1, language=language)


def transcripts(recognizer: Recognizer, corpus: Corpus, packet_ms: int = 0, streams: int = 8) -> Transcripts:
    """Transcribes the corpus, in batches of recordings that are about as long. packet_ms: fed at a time, 0 for all."""
    slots, found = prompts(corpus, recognizer.session.spec), {}
    packet = packet_ms * recognizer.sample_rate_hz // 1000
    for slot in dict.fromkeys(slots):
        recognizer.prompt = slot
        mine = sorted((i for i, s in enumerate(slots) if s == slot), key=lambda i: corpus.utterances[i].seconds)
        samples = ((str(i), corpus.utterances[i].samples()) for i in mine)
        for hypothesis in recognizer.transcribe(samples, streams=streams, packet_samples=packet):
            found[int(hypothesis.id)] = (hypothesis.tokens, hypothesis.text)
    return [found[i] for i in range(len(slots))]


def cells(setup: Setup, records: Sequence[Record], ours: Transcripts, *, tokens: bool = True) -> list[str]:
    """tokens: compare tokens, not texts."""
    found = []
    for kind in KINDS:
        rows = [row for row in zip(setup.corpus.utterances, records, ours, setup.kinds, strict=True) if row[3] == kind]
        counts = [count_words(record.text, text, utterance.language) for utterance, record, (_, text), _ in rows]
        lost, added = sum(c.deletions for c in counts), sum(c.insertions for c in counts)
        other = sum(
            ids != record.tokens if tokens else text.strip() != split_tags(record.text)[0].strip()
            for _, record, (ids, text), _ in rows
        )
        found.append(f"{lost} / {added} / {sum(c.substitutions for c in counts)} ({other})")
    return found


def whole(setup: Setup, records: Sequence[Record]) -> list[str]:
    """NeMo's words and recordings of each kind."""
    of_kind = {kind: [i for i, one in enumerate(setup.kinds) if one == kind] for kind in KINDS}
    words = {
        kind: sum(count_words(records[i].text, "", setup.corpus.utterances[i].language).words for i in of_kind[kind])
        for kind in KINDS
    }
    return [f"{words[kind]} ({len(of_kind[kind])})" for kind in KINDS]


def packets(setup: Setup, recognizer: Recognizer, every: int) -> int:
    """How many recordings have other tokens when they come in packets. every: one of so many recordings is fed so."""
    few = Corpus(setup.corpus.path, tuple(u for u in setup.corpus.utterances[::every] if u.seconds < 15))
    wanted = transcripts(recognizer, few, streams=1)  # in a batch packets would change who its members are
    found = (transcripts(recognizer, few, ms, streams=1) for ms in PACKETS_MS)
    return sum(a != b for one in found for a, b in zip(one, wanted, strict=True))


def sherpa(build: Path, variant: str, folder: Path) -> Callable[[Utterance], str]:
    """Fed as the example on the package's card does: with the silence that config.json asks for around a stream."""
    import json

    import sherpa_onnx

    sherpa_layout.lay_out(build, [variant], folder)
    config = json.loads((folder / "config.json").read_text())
    names = dict(zip(("encoder", "decoder", "joiner"), map(str, sherpa_layout.graphs(folder, variant)), strict=True))
    names, rules = {**names, "tokens": str(folder / "tokens.txt")}, config["sherpa_onnx"]
    around = [np.zeros(rules.get(name, 0), np.float32) for name in ("lead_samples", "tail_samples")]
    online = "streaming" in config["spec"]
    kind = sherpa_onnx.OnlineRecognizer if online else sherpa_onnx.OfflineRecognizer
    model = kind.from_transducer(**names, num_threads=1, **({} if online else {"model_type": "nemo_transducer"}))

    def transcribe(utterance: Utterance) -> str:
        stream = model.create_stream()
        if config["spec"].get("prompt"):
            stream.set_option("language", utterance.prompt_language)
        stream.accept_waveform(utterance.sample_rate_hz, np.concatenate([around[0], utterance.samples(), around[1]]))
        if not online:
            model.decode_stream(stream)
            return stream.result.text
        stream.input_finished()
        while model.is_ready(stream):
            model.decode_stream(stream)
        return model.get_result(stream)

    return transcribe


def asr(build: Path, variant: str, folder: Path) -> Callable[[Utterance], str]:
    import onnx_asr

    onnx_asr_layout.lay_out(build, [variant], folder)
    suffix = onnx_asr_layout.suffix_of(variant).removeprefix(".") or None
    model = onnx_asr.load_model("nemo-conformer-tdt", folder, quantization=suffix)
    return lambda utterance: model.recognize(utterance.samples())


def peer_rows(setup: Setup, variants: Sequence[str], work: Path) -> list[list[str]]:
    """Sherpa-onnx has one lookahead in a package, the build's default."""
    lookahead = opened(setup, FP32).lookahead
    kinds = {"sherpa-onnx": sherpa} | ({"onnx-asr": asr} if lookahead is None else {})
    records, rows = setup.oracle.runs[OFFLINE, lookahead], []
    for name, peer in kinds.items():
        for variant in variants:
            folder = work / f"{name}-{variant}"
            folder.mkdir(parents=True, exist_ok=True)
            transcribe = peer(setup.build, variant, folder)
            found: Transcripts = [((), split_tags(transcribe(utterance))[0]) for utterance in setup.corpus.utterances]
            rows.append([f"{name}, {variant}", str(lookahead), "offline", *cells(setup, records, found, tokens=False)])
    return rows


def measured(setup: Setup, variants: Sequence[str], every: int) -> tuple[list[list[str]], list[str]]:
    """Returns the rows of the variants, and what is wrong."""
    rows, wrong = [], []
    for (mode, lookahead), records in setup.oracle.runs.items():
        flush = "nemo" if mode == STREAMING else "full"
        rows.append(["NeMo: words (recordings)", str(lookahead), mode, *whole(setup, records), ""])
        for variant in variants:
            recognizer = opened(setup, variant, lookahead, flush)
            found, in_packets = cells(setup, records, transcripts(recognizer, setup.corpus)), packets(setup, recognizer, every)
            rows.append([variant, str(lookahead), mode, *found, str(in_packets)])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
            other = [cell for cell in found if not cell.endswith("(0)")]
            if (variant.endswith(FP32) and other) or in_packets:
                wrong.append(f"{variant}, lookahead {lookahead}, {mode}: {', '.join(other)}; in packets: {in_packets}")
    return rows, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--speech", type=Path, required=True, help="a manifest")
    parser.add_argument("--variants", nargs="+", default=[FP32])
    parser.add_argument("--peers", nargs="*", default=[], help="variants that the other runtimes run")
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--clipped", type=int, default=24, help="utterances that are clipped")
    parser.add_argument("--padded", type=int, default=6, help="utterances with silence around")
    parser.add_argument("--every", type=int, default=16, help="one of so many recordings is fed in packets")
    options = parser.parse_args()
    checkpoint = read_checkpoint(options.checkpoint)
    prompted = bool(checkpoint.spec.prompt)
    recognizer = Recognizer.open(options.build / FP32, threads=1, language="auto" if prompted else None)
    counts = (options.words, options.clipped, options.padded)
    corpus, kinds = edge_audio.made(options.build / "nothing-lost", recognizer, options.speech, counts)
    lookaheads = checkpoint.spec.lookaheads
    wanted = [(OFFLINE, r) for r in lookaheads if r != 0] + [(STREAMING, r) for r in lookaheads if r is not None]
    oracle = record_runs(checkpoint, corpus, wanted, options.build, lambda line: print(line, file=sys.stderr, flush=True))
    setup = Setup(options.build, corpus, kinds, oracle, prompted)
    rows, wrong = measured(setup, options.variants, options.every)
    rows += [[*row, "-"] for row in peer_rows(setup, options.peers, options.build / "nothing-lost" / "peers")]
    print(f"{len(corpus.utterances)} recordings, {corpus.seconds / 60:.1f} minutes, of {options.speech}\n")
    print(table(["", "lookahead", "NeMo's run", *KINDS, "in packets"], rows))
    print("\n".join(f"\nWRONG: {line}" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
