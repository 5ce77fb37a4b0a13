"""Variants of a multilingual build by language, on more speech than is committed: writes bench/languages.md.

    python bench/languages.py --build build/streaming-multilingual [--clips 80] [--corpus MANIFEST] [--variants ...]

Held-out sentences in held-out voices, made with espeak-ng: of the grammar, and as many of words that no training text
has, in no order; or the speech of a manifest. Each clip is transcribed at every lookahead, and of every third clip the model is
to find out the language. Rates are WER, or CER of the languages without spaces; differences are from fp32 of the same
contract on the same clips, which the gates hold to NeMo's tokens, and their intervals are drawn by clips.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.cache_layout import cache_layout_of, variant_of
from nemoport.files import write_json
from nemoport.markdown import table
from nemoport.reference import languages, prompt, speech
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.score import WordCounts, count_words, is_unspaced, wer_difference, wer_percent
from nemoport.speech.corpus import Corpus, Utterance, prompts, read_corpus
from nemoport.stream import Stream
from nemoport.text import lines
from nemoport.tokens import detokenize, read_tokens
from nemoport.validate.run import built
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
    """What is said in each clip of the corpus, at every lookahead; kept beside the build, to be taken up again."""
    artifact = Artifact.open(build / variant)
    kept = build / "further" / f"heard-{corpus.digest[:16]}" / f"{variant}-{artifact.manifest.digest[:16]}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    session, filterbank = OnnxSession.open(artifact, threads=1), artifact.filterbank()
    pieces = read_tokens(artifact.shared / "tokens.txt")

    def text(utterance: Utterance, slot: int | None, lookahead: int) -> str:
        stream = Stream(session, filterbank, lookahead, prompt=slot)
        stream.feed(utterance.samples())
        stream.finish()
        return detokenize(pieces, stream.tokens)

    told = zip(corpus.utterances, prompts(corpus, artifact.spec), strict=True)
    texts = [[text(utterance, slot, lookahead) for lookahead in artifact.spec.lookaheads] for utterance, slot in told]
    write_json(kept, texts)
    return texts


def counted(build: Path, variant: str, corpus: Corpus) -> list[list[WordCounts]]:
    """The counts of each clip, one for each lookahead."""
    heard = zip(corpus.utterances, hear(build, variant, corpus), strict=True)
    return [[count_words(utterance.text, text, utterance.language) for text in texts] for utterance, texts in heard]


def compared(mine: list[list[WordCounts]], base: list[list[WordCounts]]) -> tuple[str, str]:
    """The rate, and by how much it is above the base's; clip by clip."""
    rate = f"{wer_percent([count for clip in mine for count in clip]):.2f}"
    if mine is base:
        return rate, ""
    above = wer_difference(mine, base)
    return rate, f"{above.value:+.2f} ({above.lower:+.2f} to {above.upper:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the table of every variant by language.")
    parser.add_argument("--build", type=Path, required=True, help="of a checkpoint with a prompt")
    parser.add_argument("--clips", type=int, default=80, help="of either kind, to be made in each language")
    parser.add_argument("--corpus", type=Path, help="a manifest instead")
    parser.add_argument("--variants", nargs="+", help="default: all built")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("languages.md"))
    args = parser.parse_args()
    spec = Artifact.open(args.build / FP32).spec
    corpus = read_corpus(args.corpus or further(args.build / "further", args.clips), spec.frontend.sample_rate_hz)
    variants = args.variants or built(args.build)
    bases = list(dict.fromkeys(variant_of(cache_layout_of(v), FP32) for v in variants))
    heard = [*bases, *(v for v in variants if v not in bases)]
    with ProcessPoolExecutor(args.jobs) as pool:
        counts = dict(zip(heard, pool.map(partial(counted, args.build, corpus=corpus), heard), strict=True))
    kinds = [json.loads(line).get("set", "") for line in lines(corpus.path.read_text())]
    several = sorted(set(kinds)) if len(set(kinds)) > 1 else []
    heads = ("rate", "above fp32 (95 %)")
    rows = [("language", "variant", *heads, *(f"{kind}: {head}" for kind in several for head in heads))]
    for language in dict.fromkeys(u.language for u in corpus.utterances):
        unit = "CER" if is_unspaced(language) else "WER"
        for variant in dict.fromkeys([*bases, *variants]):
            row = [language, variant]
            for wanted in [set(kinds), *({kind} for kind in several)]:
                clips = [i for i, u in enumerate(corpus.utterances) if u.language == language and kinds[i] in wanted]
                base = [counts[variant_of(cache_layout_of(variant), FP32)][i] for i in clips]
                row += compared(base if variant in bases else [counts[variant][i] for i in clips], base)
            row[2] += f" % {unit}"
            rows.append(tuple(row))
    text = f"{instruction_set()}; {len(corpus.utterances)} clips, {corpus.seconds / 60:.0f} min, {corpus.path.name}, digest "
    text += f"{corpus.digest[:16]}; each at the lookaheads {', '.join(map(str, spec.lookaheads))}."
    args.out.write_text("\n".join([text, "", table(rows[0], rows[1:])]) + "\n")
    print(args.out.read_text(), end="")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
