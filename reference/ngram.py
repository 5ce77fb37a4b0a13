"""Trains a small n-gram language model on the recipe's training text and writes it as ARPA, for CTC beam search.

``python -m nemoport.reference.ngram --out lm.arpa [--sentences 20000] [--order 3] [--written] [--text FILE ...]``

The text is that of the English recipe which a clone has: sentences of the grammar and made-up ordinary ones, without
what is held out. Interpolated Kneser-Ney with one discount an order (Chen and Goodman 1999, section 2.7). For large texts
use KenLM's lmplz.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from . import ordinary, text, written

Gram = tuple[str, ...]
START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0  # log10 probability of what never follows


def training_sentences(count: int, seed: str, as_written: bool = False) -> Iterator[str]:
    """Draws sentences of the recipe's training text, a half of each kind, without what is held out."""
    rng, held_out = random.Random(f"ngram {seed}"), text.held_out_words()
    grammar = text.grammar_sentences(f"ngram {seed}", held_out=False)
    while count:
        sentence = next(grammar) if rng.random() < 0.5 else ordinary.sentence(rng)
        if text.trainable(sentence, held_out):
            yield written.english(sentence) if as_written else sentence
            count -= 1


def counted(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """Counts the n-grams of each order, 1 first: how often at the highest one; below it, how many words come before it.

    What begins with the start of a sentence has no word before it, so it is counted as it is.
    """
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = (START, *sentence, END)
        for end in range(2, len(words) + 1):
            counts[order - 1][words[max(0, end - order) : end]] += 1
    full = counts[order - 1]
    for short in [gram for gram in full if len(gram) < order]:  # they begin with START
        counts[len(short) - 1][short] = full.pop(short)
    for n in range(order - 1, 0, -1):
        for gram in counts[n]:
            counts[n - 1][gram[1:]] += 1
    return counts


def discount(counts: Counter[Gram]) -> float:
    """Discount of one order, by how many n-grams it has once and twice."""
    once, twice = (sum(1 for count in counts.values() if count == n) for n in (1, 2))
    return once / (once + 2 * twice) if once and twice else 0.5


def estimated(sentences: Iterable[Sequence[str]], order: int) -> tuple[list[dict[Gram, float]], dict[Gram, float]]:
    """Estimates the probabilities of n-grams, by order, and the weights of what follows a history but is not among them."""
    counts = counted(sentences, order)
    probabilities: list[dict[Gram, float]] = []
    backoff: dict[Gram, float] = {}
    uniform = 1 / (len(counts[0]) + 1)  # of every word but START, and of the unknown one
    for seen in counts:
        taken, totals, kinds = discount(seen), defaultdict(int), Counter()
        for gram, count in seen.items():
            totals[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        for history, total in totals.items():
            backoff[history] = taken * kinds[history] / total
        lower = probabilities[-1] if probabilities else None
        probabilities.append(
            {
                gram: (count - taken) / totals[gram[:-1]] + backoff[gram[:-1]] * (lower[gram[1:]] if lower else uniform)
                for gram, count in seen.items()
            }
        )
    probabilities[0][(UNKNOWN,)] = backoff.pop(()) * uniform
    return probabilities, backoff


def write(path: Path, sentences: Iterable[Sequence[str]], order: int) -> list[int]:
    """Writes an ARPA file of the n-grams of sentences, each its words; returns how many there are of each order."""
    probabilities, backoff = estimated(sentences, order)
    probabilities[0] = {(START,): 10**NEVER} | probabilities[0]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(grams)}\n" for n, grams in enumerate(probabilities, 1)))
        for n, grams in enumerate(probabilities, 1):
            file.write(f"\n\\{n}-grams:\n")
            for gram, probability in grams.items():
                weight = f"\t{math.log10(backoff[gram]):.6f}" if gram in backoff else ""
                file.write(f"{math.log10(probability):.6f}\t{' '.join(gram)}{weight}\n")
        file.write("\n\\end\\\n")
    return list(map(len, probabilities))


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains an n-gram language model.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=20000)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--written", action="store_true", help="with capitals and punctuation")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="more text, a sentence a line")
    parser.add_argument("--seed", default="0")
    args = parser.parse_args()
    lines = list(training_sentences(args.sentences, args.seed, args.written))
    lines += [line for path in args.text for line in path.read_text().splitlines() if line]
    counts = write(args.out, [line.split() for line in lines], args.order)
    print(f"{args.out}: {', '.join(map(str, counts))} n-grams of order 1 to {args.order}, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
