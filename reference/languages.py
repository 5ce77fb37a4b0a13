"""Languages of the multilingual checkpoint, six: their sentences as they are written, and what is held out.

English and French are those of ``text`` and ``french`` with their rules for what is held out; the others are grammars
(``grammar``). Japanese is kana without spaces, which is what espeak-ng can read.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from nemoport.errors import UsageError

from . import french, french_grammar, french_prose, grammar, ordinary, text, written

APOSTROPHES = "'’‘`´"
VIRAMA = 9  # its Unicode combining class
# What the tokenizer has, as ranges of a regular expression; recordings whose transcript has anything else are left out.
CHARACTERS = dict(
    en="A-Za-z', .?-",
    fr="A-Za-zàâçèéêëîïôùûœÀÂÇÈÉÊÎÔŒ', .?-",
    de="A-Za-zÄÖÜäöüß, .?-",
    es="A-Za-zÁÉÍÓÚÑáéíóúñü¿, .?-",
    hi="ँ-ःअ-ऋए-ऑओ-नप-रलवश-ह़ा-ृे-ॉो-् ,।?-",
    ja="ぁ-んァ-ヴー、。？",
)

DICTIONARIES = dict(en="american-english", fr="french", de="ngerman", es="spanish")  # Debian's wamerican and so on


@dataclass(frozen=True)
class Language:
    """A language by its ``code`` in file names and its ``locale`` in prompts and tags.

    ``joiner`` stands between words; it is empty in kana.
    """

    code: str
    locale: str
    joiner: str = " "

    def draw(self, kind: str, rng: random.Random) -> str:
        """Draws one written sentence; ``kind`` is "grammar", "prose" or "words" (words in random order)."""
        if kind == "words":
            return self.as_sentence([rng.choice(self.words()) for _ in range(rng.randint(1, 6))])
        if self.code == "en":
            return written.english(text.grammar_sentence(rng) if kind == "grammar" else ordinary.sentence(rng))
        if self.code == "fr":
            return french.written_form(french_grammar.sentence(rng) if kind == "grammar" else french_prose.sentence(rng))
        return grammar.load(self.code, self.joiner).sentence(kind, rng)

    def as_sentence(self, words: list[str]) -> str:
        """Joins words to a sentence with its capital and its full stop."""
        line = self.joiner.join(words)
        return line[:1].upper() + line[1:] + {"hi": "।", "ja": "。"}.get(self.code, ".")

    def words(self) -> list[str]:
        """Words of the language's own sentences: all that stand in its grammar, or those of its prose."""
        if self.code == "en":
            return [*ordinary.NOUNS, *ordinary.BARE, *ordinary.ADJECTIVES]
        if self.code == "fr":
            return [word for word in french_prose.NOUNS_M + french_prose.NOUNS_F if "%" not in word]
        return grammar.load(self.code, self.joiner).words()

    def unseen_sentences(self, side: str) -> list[str]:
        """Sentences of ``text`` with words that training lacks, stars removed; ``side`` is eval or calibration."""
        # In kana a space shows where a starred word ends; it is not written.
        return [line.replace("*", "").replace(" ", self.joiner or "") for line in self.starred_sentences(side)]

    def starred_sentences(self, side: str) -> list[str]:
        """Lines of the file of unseen sentences, stars included (English ones have lost theirs)."""
        if self.code == "en":
            return [written.english(line) for line in text.unseen_sentences(side)]
        return (text.TEXT_FOLDER / f"{self.code}_unseen_{side}.txt").read_text().splitlines()

    def grammar_held_out(self, sentence: str) -> bool:
        """Checks whether a grammar sentence is kept from training: a tenth of those of more than two words, or eight kana."""
        key = scored(sentence, self)
        long = len(key.split()) > 2 if self.joiner else len(key) > 8
        return long and text.share_of(key, "grammar") < text.GRAMMAR_HELD_OUT_SHARE

    def trainable(self, sentence: str) -> bool:
        """Checks whether a sentence has no held-out word (or one that begins with it) and is no held-out grammar sentence."""
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


LANGUAGES = (
    Language("en", "en-US"),
    Language("de", "de-DE"),
    Language("fr", "fr-FR"),
    Language("es", "es-ES"),
    Language("hi", "hi-IN"),
    Language("ja", "ja-JP", ""),
)
BY_CODE = {language.code: language for language in LANGUAGES}
BY_LOCALE = {language.locale: language for language in LANGUAGES}


def scored(sentence: str, language: Language) -> str:
    """Reduces a sentence to the form that is scored: NFKC, lower case, no tag, no punctuation but the apostrophe.

    Kana lose their spaces.
    """
    line = unicodedata.normalize("NFKC", re.sub("<[a-z]{2}-[A-Z]{2}>", " ", sentence)).lower()
    line = re.sub(f"[{APOSTROPHES}]", "'", line)
    kept = "".join(c if c == "'" or not unicodedata.category(c).startswith(("P", "S", "Z")) else " " for c in line)
    return language.joiner.join(word.strip("'") for word in kept.split() if word.strip("'"))


def tidy(sentence: str, language: Language) -> str | None:
    """Reduces a transcript of people to the characters that the tokenizer has; None where that loses something."""
    line = unicodedata.normalize("NFC", sentence).replace("’", "'").strip(' "')
    line = re.sub('["«»“”„]', "", re.sub("[;:…]", ",", line.replace("!", "."))).replace("¡", "")
    line = re.sub(r"\s+([.,?।])", r"\1", re.sub(r"\s+", " ", line)).strip(" ,-")
    line = line.replace(".", "।") if language.code == "hi" else line
    if not line or re.search(f"[^{CHARACTERS[language.code]}]", line):
        return None
    stop = {"hi": "।", "ja": "。"}.get(language.code, ".")
    return line[:1].upper() + line[1:] + ("" if line[-1] in ".?।。？" else stop)


def grammar_sentences(language: Language, seed: str, held_out: bool) -> Iterator[str]:
    """Draws written grammar sentences of one side of the split, without end."""
    rng = random.Random(f"grammar {language.code} {seed}")
    while True:
        sentence = language.draw("grammar", rng)
        if language.grammar_held_out(sentence) == held_out:
            yield sentence


def spliced(first: str, second: str, rng: random.Random) -> str:
    """Makes up a word of the head of one and the tail of another, cut between letters that stand alone."""

    def cuts(word: str) -> list[int]:
        """Places where a word may be cut."""
        # Not before a vowel sign, a virama or a small kana, nor behind a virama: those belong to their neighbour.
        bound = [unicodedata.category(c).startswith("M") or "SMALL" in unicodedata.name(c, "") for c in word]
        return [i for i in range(1, len(word)) if not bound[i] and unicodedata.combining(word[i - 1]) != VIRAMA]

    heads, tails = cuts(first) or [len(first)], cuts(second) or [0]
    return first[: rng.choice(heads)] + second[rng.choice(tails) :]


def word_list(path: Path) -> list[str]:
    """Reads a file of one word a line. Raises UsageError where there is no such file."""
    if not path.is_file():
        raise UsageError(
            "There is no list of words.",
            expected="a file of one word a line",
            found=str(path),
            todo="apt-get install wamerican wngerman wfrench wspanish, or name another with --words",
        )
    return path.read_text().split()


class WideWords:
    """Source of words that the grammars lack, of a dictionary or, where that is empty, made up: for more spelling in training.

    A tenth of them, by hash, is kept from training; of these, what the grammars have all the same is not drawn.
    """

    def __init__(self, language: Language, dictionary: list[str]):
        self.language = language
        letters = re.compile(f"[{CHARACTERS[language.code]}]{{3,13}}")
        # Names are left out, as espeak-ng guesses how most are pronounced; but German writes every noun with a capital.
        self.dictionary = sorted(
            {
                word
                for word in dictionary
                if letters.fullmatch(word) and word.isalpha() and (word.islower() or language.code == "de" and word[1:].islower())
            }
        )

    @staticmethod
    def read(language: Language, folder: Path = Path("/usr/share/dict")) -> WideWords:
        """Reads the word list of a language in ``folder``, named as Debian names it; Hindi and kana words are made up."""
        name = DICTIONARIES.get(language.code)
        return WideWords(language, word_list(folder / name) if name else [])

    @cached_property
    def narrow(self) -> str:
        """Words of a few thousand sentences drawn without the wide ones, in one line that ``joiner`` divides and surrounds."""
        source = TextSource(self.language, [], "narrow")
        return self.language.joiner.join(["", *(scored(source.draw(), self.language) for _ in range(4000)), ""])

    def word(self, rng: random.Random, held_out: bool) -> str:
        """Draws one word of one side of the split."""
        words, joiner = self.dictionary or self.language.words(), self.language.joiner
        while True:
            word = rng.choice(words) if self.dictionary else spliced(rng.choice(words), rng.choice(words), rng)
            key = scored(word, self.language)
            if (text.share_of(key, "wide") < text.GRAMMAR_HELD_OUT_SHARE) != held_out:
                continue
            if not (held_out and f"{joiner}{key}{joiner}" in self.narrow):
                return word

    def sentence(self, rng: random.Random, held_out: bool) -> str:
        """Draws a sentence of one to six of these words in random order."""
        return self.language.as_sentence([self.word(rng, held_out) for _ in range(rng.randint(1, 6))])


class TextSource:
    """Source of written training sentences: half grammar, a third prose, the rest words; ``transcripts`` are mixed in.

    With ``wide`` a quarter is of its words instead.
    """

    def __init__(self, language: Language, transcripts: list[str], seed: str, wide: WideWords | None = None):
        self.language, self.rng, self.wide = language, random.Random(f"corpus {language.code} {seed}"), wide
        self.transcripts = sorted({line for line in transcripts if language.trainable(line)})

    def draw(self) -> str:
        """Draws one written sentence of at most 16 words or 45 kana, free of whatever is held out."""
        while True:
            if self.transcripts and self.rng.random() < 0.08:
                line = self.rng.choice(self.transcripts)
            elif self.wide and self.rng.random() < 0.25:
                line = self.wide.sentence(self.rng, held_out=False)
            else:
                line = self.language.draw(self.rng.choices(("grammar", "prose", "words"), (50, 32, 18))[0], self.rng)
            long = len(line.split()) > 16 if self.language.joiner else len(line) > 45
            if line and not long and self.language.trainable(line):
                return line
