"""Variants of a multilingual build by language, on more speech than is committed: writes bench/languages.md.

    python bench/languages.py --build build/streaming-multilingual [--clips 80] [--corpus MANIFEST] [--variants ...]

Held-out sentences in held-out voices, made with espeak-ng: of the grammar, and as many of words that no training text
has, in no order; or the speech of a manifest. Each clip is heard at every lookahead, and of every third clip the model is
to find out the language. Rates are WER, or CER of the languages without spaces; differences are from fp32 of the same
contract on the same clips, which the gates hold to NeMo's tokens, and their intervals are drawn by clips.
"""

from __future__ import annotations

import argparse
import os
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.calibration.corpus import Corpus, Utterance, prompts, read_corpus
from nemoport.contract import contract_of, variant_of
from nemoport.reference import languages, prompt, speech
from nemoport.stream import Stream
from nemoport.tokens import detokenize, read_tokens
from nemoport.validate.report import pipes
from nemoport.validate.run import built
from nemoport.validate.score import WordCounts, count_words, is_unspaced, wer_difference, wer_percent
from nemoport.validate.sessions.onnxruntime import OnnxSession
from nemoport.variant import FP32, instruction_set


def further(folder: Path, clips: int) -> Path:
    """A manifest of so many clips of either kind in each language of the reference checkpoint, made once."""
    path = folder / f"further-{clips}-unseen.jsonl"
    if not path.is_file():
        rows = []
        for language in languages.LANGUAGES:
            name = f"eval-further-{language.code}"
            words, rng = languages.WideWords.read(language), random.Random(name)
            unseen = [words.sentence(rng, held_out=True) for _ in range(clips)]
            new = speech.held_out_set(name, clips, [], language.code, unseen)
            told = ({"target_lang": prompt.AUTO} if i % 3 == 2 else {} for i in range(len(new)))
            rows += [dict(row, lang=language.locale, **one) for row, one in zip(new, told, strict=True)]
        folder.mkdir(parents=True, exist_ok=True)
        speech.write_set(folder, path.stem, rows)
    return path


def hear(build: Path, variant: str, corpus: Corpus) -> list[list[str]]:
    """What is said in each clip of the corpus, at every lookahead."""
    artifact = Artifact.open(build / variant)
    session, filterbank = OnnxSession.open(artifact, threads=1), artifact.filterbank()
    pieces = read_tokens(artifact.shared / "tokens.txt")

    def text(utterance: Utterance, slot: int | None, lookahead: int) -> str:
        stream = Stream(session, filterbank, lookahead, prompt=slot)
        stream.feed(utterance.samples())
        stream.finish()
        return detokenize(pieces, stream.tokens)

    told = zip(corpus.utterances, prompts(corpus, artifact.spec), strict=True)
    return [[text(utterance, slot, lookahead) for lookahead in artifact.spec.lookaheads] for utterance, slot in told]


def counted(build: Path, variant: str, corpus: Corpus) -> dict[str, list[list[WordCounts]]]:
    """language -> the counts of each clip, one for each lookahead."""
    found: dict[str, list[list[WordCounts]]] = {}
    for utterance, clip in zip(corpus.utterances, hear(build, variant, corpus), strict=True):
        counts = [count_words(utterance.text, text, utterance.language) for text in clip]
        found.setdefault(utterance.language, []).append(counts)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the table of every variant by language.")
    parser.add_argument("--build", type=Path, required=True, help="of a checkpoint with a prompt")
    parser.add_argument("--clips", type=int, default=80, help="of either kind, to be made in each language")
    parser.add_argument("--corpus", type=Path, help="a manifest instead")
    parser.add_argument("--variants", nargs="+", help="default: all built")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("languages.md"))
    args = parser.parse_args()
    spec = Artifact.open(args.build / FP32).spec
    corpus = read_corpus(args.corpus or further(args.build / "further", args.clips), spec.frontend.sample_rate_hz)
    variants = args.variants or built(args.build)
    bases = list(dict.fromkeys(variant_of(contract_of(v), FP32) for v in variants))
    heard = [*bases, *(v for v in variants if v not in bases)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(heard, pool.map(partial(counted, args.build, corpus=corpus), heard), strict=True))
    rows = [("language", "variant", "rate", "above fp32 (95 %)", "clips", "counted")]
    for language in counts[bases[0]]:
        for variant in variants:
            mine, base = (counts[v][language] for v in (variant, variant_of(contract_of(variant), FP32)))
            flat = [count for clip in mine for count in clip]
            above, unit = wer_difference(mine, base), "CER" if is_unspaced(language) else "WER"
            spread = "" if variant in bases else f"{above.value:+.2f} ({above.lower:+.2f} to {above.upper:+.2f})"
            rate = f"{wer_percent(flat):.2f} % {unit}"
            rows.append((language, variant, rate, spread, str(len(mine)), str(sum(c.words for c in flat))))
    text = f"{instruction_set()}; {len(corpus.utterances)} clips, {corpus.seconds / 60:.0f} min, {corpus.path.name}, digest "
    text += f"{corpus.digest[:16]}; each at the lookaheads {', '.join(map(str, spec.lookaheads))}."
    args.out.write_text("\n".join([text, "", *pipes(rows)]) + "\n")
    print(args.out.read_text(), end="")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
