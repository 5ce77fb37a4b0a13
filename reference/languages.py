"""The six languages of the multilingual checkpoint: their sentences as they are written, and what is held out.

English and French are those of ``text`` and ``french`` with their rules for what is held out; the others are grammars
(``grammar``). Japanese is kana without spaces, which is what espeak-ng can read.
"""
from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from . import french, grammar, ordinary, text, written

APOSTROPHES = "'’‘`´"
# What the tokenizer is taught; recordings whose transcript has anything else are left out.
CHARACTERS = dict(
    en="A-Za-z', .?-", fr="A-Za-zàâçèéêëîïôùûœÀÂÇÈÉÊÎÔŒ', .?-", de="A-Za-zÄÖÜäöüß, .?-", es="A-Za-zÁÉÍÓÚÑáéíóúñü¿, .?-",
    hi="ँ-ःअ-ऋए-ऑओ-नप-रलवश-ह़ा-ृे-ॉो-् ,।?-", ja="ぁ-んァ-ヴー、。？")


@dataclass(frozen=True)
class Language:
    """``code`` as the files have it, ``locale`` as prompt and tag have it, ``joiner`` between words (none in kana)."""

    code: str
    locale: str
    joiner: str = " "

    def draw(self, kind: str, rng: random.Random) -> str:
        """One written sentence; ``kind`` is "grammar", "prose" or "words" (in no order that means anything)."""
        if kind == "words":
            line = self.joiner.join(rng.choice(self.words()) for _ in range(rng.randint(1, 6)))
            return line[:1].upper() + line[1:] + {"hi": "।", "ja": "。"}.get(self.code, ".")
        if self.code == "en":
            return written.english(text.grammar_sentence(rng) if kind == "grammar" else ordinary.sentence(rng))
        if self.code == "fr":
            return written.tidy(french.grammar_sentence(rng) if kind == "grammar" else french.ordinary_sentence(rng))
        return grammar.load(self.code, self.joiner).sentence(kind, rng)

    def words(self) -> list[str]:
        if self.code == "en":
            return ordinary.NOUNS + ordinary.BARE + ordinary.ADJECTIVES
        if self.code == "fr":
            return [word for word in french.NOUNS_M + french.NOUNS_F if "%" not in word]
        return grammar.load(self.code, self.joiner).words()

    def unseen_sentences(self, side: str) -> list[str]:
        """Sentences of ``text`` with words that training lacks, stars removed; ``side`` is eval or calibration."""
        # In kana a space shows where a starred word ends; it is not written.
        return [line.replace("*", "").replace(" ", self.joiner or "") for line in self.starred_sentences(side)]

    def starred_sentences(self, side: str) -> list[str]:
        """The lines of the file, stars and all (English ones have lost theirs)."""
        if self.code == "en":
            return [written.english(line) for line in text.unseen_sentences(side)]
        return (text.TEXT_FOLDER / f"{self.code}_unseen_{side}.txt").read_text().splitlines()

    def grammar_held_out(self, sentence: str) -> bool:
        """Whether a grammar sentence is kept from training: a tenth of those of more than two words, or eight kana."""
        key = scored(sentence, self)
        long = len(key.split()) > 2 if self.joiner else len(key) > 8
        return long and text.share_of(key, "grammar") < text.GRAMMAR_HELD_OUT_SHARE

    def trainable(self, sentence: str) -> bool:
        """Whether a sentence has no held-out word (or one that begins with it) and is no held-out grammar sentence."""
        if self.grammar_held_out(sentence):
            return False
        key, held_out = scored(sentence, self), held_out_words(self)
        if not self.joiner:
            return not any(word in key for word in held_out)
        words = key.replace("'", " ").split()
        if self.code in ("en", "fr"):
            return not held_out.intersection(words + key.split())
        return not any(word.startswith(tuple(held_out)) for word in words)


@cache
def held_out_words(language: Language) -> frozenset[str]:
    """Starred words of both sides, as they are scored; those of English and French with their inflections."""
    if language.code in ("en", "fr"):
        return (text if language.code == "en" else french).held_out_words()
    lines = "\n".join(line for side in ("eval", "calibration") for line in language.starred_sentences(side))
    return frozenset(scored(word, language) for word in re.findall(r"\*([^\s*.,?]+)", lines))


LANGUAGES = (Language("en", "en-US"), Language("de", "de-DE"), Language("fr", "fr-FR"), Language("es", "es-ES"),
             Language("hi", "hi-IN"), Language("ja", "ja-JP", ""))
BY_CODE = {language.code: language for language in LANGUAGES}
BY_LOCALE = {language.locale: language for language in LANGUAGES}


def scored(sentence: str, language: Language) -> str:
    """The form that is compared: NFKC, lower case, no tag, no punctuation but the apostrophe; kana without spaces."""
    line = unicodedata.normalize("NFKC", re.sub("<[a-z]{2}-[A-Z]{2}>", " ", sentence)).lower()
    line = re.sub(f"[{APOSTROPHES}]", "'", line)
    kept = "".join(c if c == "'" or not unicodedata.category(c).startswith(("P", "S", "Z")) else " " for c in line)
    return language.joiner.join(word.strip("'") for word in kept.split() if word.strip("'"))


def tidy(sentence: str, language: Language) -> str | None:
    """A transcript of people in the characters that the tokenizer is taught, or None where that loses something."""
    line = unicodedata.normalize("NFC", sentence).replace("’", "'").strip(' "')
    line = re.sub('["«»“”„]', "", re.sub("[;:…]", ",", line.replace("!", "."))).replace("¡", "")
    line = re.sub(r"\s+([.,?।])", r"\1", re.sub(r"\s+", " ", line)).strip(" ,-")
    line = line.replace(".", "।") if language.code == "hi" else line
    if not line or re.search(f"[^{CHARACTERS[language.code]}]", line):
        return None
    stop = {"hi": "।", "ja": "。"}.get(language.code, ".")
    return line[:1].upper() + line[1:] + ("" if line[-1] in ".?।。？" else stop)


def grammar_sentences(language: Language, seed: str, held_out: bool) -> Iterator[str]:
    """Endless written grammar sentences of one side of the split."""
    rng = random.Random(f"grammar {language.code} {seed}")
    while True:
        sentence = language.draw("grammar", rng)
        if language.grammar_held_out(sentence) == held_out:
            yield sentence


class TextSource:
    """Draws written training sentences: half grammar, a third prose, the rest words; ``transcripts`` are mixed in."""

    def __init__(self, language: Language, transcripts: list[str], seed: str):
        self.language, self.rng = language, random.Random(f"corpus {language.code} {seed}")
        self.transcripts = sorted({line for line in transcripts if language.trainable(line)})

    def draw(self) -> str:
        """One written sentence of at most 16 words or 45 kana, free of whatever is held out."""
        while True:
            if self.transcripts and self.rng.random() < 0.08:
                line = self.rng.choice(self.transcripts)
            else:
                line = self.language.draw(self.rng.choices(("grammar", "prose", "words"), (50, 32, 18))[0], self.rng)
            long = len(line.split()) > 16 if self.language.joiner else len(line) > 45
            if line and not long and self.language.trainable(line):
                return line
