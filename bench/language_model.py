"""What beam search and a language model of words bring to a CTC model: WER by set, and processor time, encoder included.

    python -m nemoport.reference.ngram --out lm.arpa
    python bench/language_model.py VARIANT CORPUS lm.arpa [--lookahead R] [--widths 4 16] [--settings 0.5,1.5 ...]

VARIANT: a variant's folder; CORPUS: a manifest whose rows may have a `set`; --settings: weight and word bonus of the model.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jiwer

from nemoport.language_model import ArpaFile
from nemoport.recognizer import Recognizer
from nemoport.score import normalise
from nemoport.speech.corpus import read_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("language_model", type=Path)
    parser.add_argument("--lookahead", type=int)
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--settings", nargs="+", default=["0.5,1.5"], metavar="WEIGHT,BONUS")
    options = parser.parse_args()
    sets = [json.loads(line).get("set", "all") for line in options.corpus.read_text().splitlines()]
    models = [ArpaFile(options.language_model, *map(float, setting.split(","))) for setting in options.settings]

    def report(title: str, **decoding) -> None:
        recognizer = Recognizer.open(options.variant, options.lookahead, threads=1, **decoding)
        utterances = read_corpus(options.corpus, recognizer.sample_rate_hz).utterances
        audio = [(u.id, u.samples()) for u in utterances]
        began = time.process_time()
        found = {h.id: h.text for h in recognizer.transcribe(audio)}
        seconds = time.process_time() - began
        rates = []
        for name in (None, *dict.fromkeys(sets)):
            chosen = [u for u, part in zip(utterances, sets, strict=True) if name in (None, part)]
            rate = jiwer.wer([normalise(u.text) for u in chosen], [normalise(found[u.id]) for u in chosen])
            rates.append(f"{100 * rate:.1f}")
        print(f"| {title} | {' | '.join(rates)} | {seconds:.1f} |", flush=True)

    print(f"| decoding | all | {' | '.join(dict.fromkeys(sets))} | processor s |\n|{'---|' * (3 + len(set(sets)))}")
    report("greedy")
    for width in options.widths:
        report(f"beam {width}", beam=width)
        for model in models:
            report(f"beam {width}, weight {model.weight:g}, bonus {model.word_bonus:g}", beam=width, language_model=model)


if __name__ == "__main__":
    main()
