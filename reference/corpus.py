"""Writes training speech: sentences of wide text in the training voices, as one NeMo manifest of WAV files.

``python -m nemoport.reference.corpus --out FOLDER --clips N [--words FILE] [--transcripts MANIFEST ...]``

A small grammar alone teaches the predictor the text and the encoder nothing, so most sentences are strings of words
from a dictionary and from transcripts, in which one word hardly predicts the next. ``--language fr`` writes French,
with capitals and punctuation; the English text has neither, ``written`` adds them for a model that emits them.
``--multilingual`` writes any of the six languages of ``languages``, as it is written and from a small vocabulary; its
``lang`` is then a locale such as de-DE, the name of a prompt.
"""

from __future__ import annotations

import argparse
import json
import random
import wave
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nemoport.errors import NemoportError, UsageError

from . import french, kokoro_corpus, languages, ordinary, reader, speech, text, voices


class TextSource:
    """Source of English training sentences: ordinary ones, grammar, transcripts, spliced transcripts, word strings, words.

    ``words`` are dictionary words, ``transcripts`` normalised sentences; both are filtered of what is held out.
    ``ordinary_share`` is the share of made-up ordinary sentences (see ``ordinary``), ``grammar_share`` that of the grammar beside
    the fifth that it has of all others.
    """

    def __init__(
        self, words: list[str], transcripts: list[str], seed: str, ordinary_share: float = 0.0, grammar_share: float = 0.0
    ):
        self.ordinary_share, self.grammar_share = ordinary_share, grammar_share
        self.held_out = held_out = text.held_out_words()
        self.rng = random.Random(f"corpus {seed}")
        self.grammar = text.grammar_sentences(f"train {seed}", held_out=False)
        self.transcripts = sorted({line for line in transcripts if text.trainable(line, held_out) and line})
        counts = Counter(word for line in self.transcripts for word in line.split())
        self.frequent = [word for word, _ in counts.most_common(120)] or ["the", "a", "and", "of", "to", "in", "is", "was"]
        self.weights = [counts[word] + 1 for word in self.frequent]
        self.known = sorted(counts.keys() - set(self.frequent)) or self.frequent
        # Names and possessives are left out: espeak-ng guesses how most of them are pronounced.
        common = {word for word in words if word.isalpha() and word.islower() and 2 < len(word) < 14}
        self.words = sorted(common & set(map(text.normalise, common)) - held_out) or self.known

    def word(self) -> str:
        """Draws one word: a frequent one of the transcripts, another of theirs, or one of the dictionary."""
        kind = self.rng.random()
        if kind < 0.3:
            return self.rng.choices(self.frequent, self.weights)[0]
        return self.rng.choice(self.known if kind < 0.6 else self.words)

    def splice(self) -> str:
        """Joins the head of one transcript and the tail of another."""
        head, tail = (self.rng.choice(self.transcripts).split() for _ in range(2))
        return " ".join(head[: self.rng.randint(1, len(head))] + tail[self.rng.randrange(len(tail)) :])

    def sentence(self) -> str:
        """Draws one sentence of any kind, what is held out included."""
        if self.ordinary_share and self.rng.random() < self.ordinary_share:
            return ordinary.sentence(self.rng)
        if self.grammar_share and self.rng.random() < self.grammar_share:
            return next(self.grammar)
        kind = self.rng.random()
        if kind < 0.2:
            return next(self.grammar)
        if kind < 0.3 or not self.transcripts:
            return " ".join(self.rng.choice(self.words) for _ in range(self.rng.randint(1, 3)))
        if kind < 0.45:
            return self.rng.choice(self.transcripts)
        if kind < 0.65:
            return self.splice()
        return " ".join(self.word() for _ in range(self.rng.randint(3, 12)))

    def draw(self) -> str:
        """Draws one sentence of at most 20 words, free of whatever is held out."""
        while not text.trainable(sentence := self.sentence(), self.held_out) or len(sentence.split()) > 20:
            continue
        return sentence


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Writes samples f32 [n] in [-1, 1] as a 16-bit mono WAV file at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(speech.SAMPLE_RATE_HZ)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def text_source(args: argparse.Namespace) -> TextSource | french.TextSource | languages.TextSource:
    """Source of the sentences that the command line asks for. Raises UsageError if a list of words is missing."""
    if args.multilingual:
        language = languages.BY_CODE[args.language]
        transcripts = [row["text"] for path in args.transcripts for row in reader.prompted_rows(path)]
        return languages.TextSource(language, transcripts, args.seed, languages.WideWords.read(language) if args.wide else None)
    words = languages.word_list(args.words)
    if args.language == "fr":
        transcripts = [row["text"] for path in args.transcripts for row in reader.written_rows(path)]
        return french.TextSource(words, transcripts, args.seed)
    transcripts = [row["text"] for path in args.transcripts for row in reader.rows(path, held_out=False)]
    return TextSource(words, transcripts, args.seed, args.ordinary_share, args.grammar_share)


def write_kokoro(args: argparse.Namespace) -> None:
    """Writes sentences in Kokoro's voices, of evaluation or of training. Exits with 2 for an error of nemoport's."""
    source = (lambda: text_source(args).draw) if args.side == "train" else None
    try:
        print(kokoro_corpus.write(args.out, args.clips, args.language, args.seed, args.packages, source))
    except NemoportError as error:
        raise SystemExit(f"{error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes synthetic training speech and its manifest.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, required=True)
    parser.add_argument("--language", choices=sorted(languages.BY_CODE), default="en")
    parser.add_argument("--multilingual", action="store_true", help="small vocabulary, as written, for the prompted model")
    parser.add_argument("--words", type=Path, default=Path("/usr/share/dict/words"), help="one word a line, in that language")
    parser.add_argument("--wide", action="store_true", help="with --multilingual: a quarter words of Debian's lists, or made-up")
    parser.add_argument("--transcripts", type=Path, nargs="*", default=[], help="NeMo manifests whose text is read aloud")
    parser.add_argument("--flite-share", type=float, default=0.0, help="share of clips in flite's voices")
    parser.add_argument("--ordinary-share", type=float, default=0.0, help="share of made-up ordinary sentences")
    parser.add_argument("--grammar-share", type=float, default=0.0, help="share of grammar sentences, English")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--voices", choices=("espeak-ng", "kokoro"), default="espeak-ng", help="kokoro: those of --side")
    parser.add_argument(
        "--side", choices=("eval", "train"), default="eval", help="kokoro: sentences kept from training, or others"
    )
    parser.add_argument("--packages", type=Path, default=Path("build/kokoro/packages"), help="where Kokoro is kept")
    args = parser.parse_args()
    own_text = args.voices == "kokoro" and args.side == "eval"
    if args.language not in ("en", "fr") and not args.multilingual and not own_text:
        parser.error(f"--language {args.language} needs --multilingual")
    if args.wide and not args.multilingual:
        parser.error("--wide needs --multilingual")
    if args.voices == "kokoro":
        write_kokoro(args)
        return
    try:
        source = text_source(args)
    except UsageError as error:
        parser.exit(error.exit_code, f"{error}\n")
    lang = languages.BY_CODE[args.language].locale if args.multilingual else args.language
    rng = random.Random(f"corpus voices {args.seed}")
    (args.out / "wav").mkdir(parents=True)

    def job(index: int) -> tuple[int, str, voices.Voice]:
        side = "flite" if rng.random() < args.flite_share else "train"
        return index, source.draw(), voices.draw(rng, side, args.language)

    def write(item: tuple[int, str, voices.Voice]) -> str:
        index, sentence, voice = item
        samples = speech.synthesise(sentence, voice)
        write_wav(args.out / f"wav/{index:06d}.wav", samples)
        return json.dumps(
            dict(
                audio_filepath=f"wav/{index:06d}.wav",
                text=sentence,
                lang=lang,
                voice=voice.name,
                duration=speech.rounded_up_s(len(samples)),
            )
        )

    # The jobs are drawn in order before any thread runs, so that the seed alone decides them.
    jobs = [job(index) for index in range(args.clips)]
    with ThreadPoolExecutor(args.threads) as pool, open(args.out / "corpus.jsonl", "w") as manifest:
        for line in pool.map(write, jobs):
            manifest.write(line + "\n")


if __name__ == "__main__":
    main()
