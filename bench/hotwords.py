"""What hotwords do: WER, and how many of the rare words are right, without and with hotwords, by their boost.

    python bench/hotwords.py VARIANT CORPUS WORDS [--beam N] [--lookahead R] [--boosts 1.5 3 ...]

VARIANT: a variant's folder; CORPUS: a manifest; WORDS: a text in which each rare word has a star before it. "others": an
utterance has only the rare words of other utterances as hotwords, so that each word which a boost brings in is wrong.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import jiwer

from nemoport.recognizer import Recognizer
from nemoport.score import normalise
from nemoport.speech.corpus import read_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("words", type=Path)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--lookahead", type=int)
    parser.add_argument("--boosts", type=float, nargs="+", default=[1.5, 3.0, 6.0, 20.0, 1000.0])
    options = parser.parse_args()
    plain = Recognizer.open(options.variant, options.lookahead, beam=options.beam)
    utterances = read_corpus(options.corpus, plain.sample_rate_hz).utterances
    audio = [(u.id, u.samples()) for u in utterances]
    truth = [normalise(u.text).split() for u in utterances]
    starred = dict.fromkeys(normalise(word) for word in re.findall(r"\*([\w'-]+)", options.words.read_text()))
    rare = [word for word in starred if any(word in words for words in truth)]
    has = [[word for word in words if word in rare] for words in truth]
    print(f"{len(audio)} utterances, {len(rare)} rare words, {sum(map(len, has))} times; beam {options.beam}")
    print(f"{'hotwords':>10} {'boost':>6} {'WER %':>6} {'rare right':>10} {'WER % without rare':>18} {'most of a word':>14}")

    def report(name: str, boost: float, texts: dict[str, str]) -> None:
        found = [normalise(texts[u.id]).split() for u in utterances]
        right = sum(min(ours.count(word), words.count(word)) for ours, words in zip(found, truth, strict=True) for word in rare)
        common = [i for i, words in enumerate(has) if not words]
        most = max((ours.count(word) for ours in found for word in set(ours) & set(rare)), default=0)
        rates = [
            jiwer.wer([" ".join(truth[i]) for i in chosen], [" ".join(found[i]) for i in chosen]) * 100
            for chosen in (range(len(truth)), common)
        ]
        print(f"{name:>10} {boost:6g} {rates[0]:6.2f} {right:10} {rates[1]:18.2f} {most:14}", flush=True)

    report("none", 0.0, {h.id: h.text for h in plain.transcribe(audio)})
    for boost in options.boosts:
        boosted = Recognizer.open(options.variant, options.lookahead, beam=options.beam, hotwords=rare, hotword_boost=boost)
        report("all", boost, {h.id: h.text for h in boosted.transcribe(audio)})
        texts = {}
        for one, words in zip(audio, has, strict=True):
            others = [word for word in rare if word not in words]
            recognizer = Recognizer.open(
                options.variant, options.lookahead, beam=options.beam, hotwords=others, hotword_boost=boost
            )
            (hypothesis,) = recognizer.transcribe([one])
            texts[hypothesis.id] = hypothesis.text
        report("others", boost, texts)


if __name__ == "__main__":
    main()
