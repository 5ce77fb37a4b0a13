"""Rules for the written form of a sentence, with capitals and punctuation, and for its spoken form, which is scored.

The rules use the text alone, so that they can be applied to the text of a clip that was made from lower-case words.
"""

from __future__ import annotations

import re
import unicodedata

from . import text

LETTERS = "a-zàâçèéêëîïôùûœ"
CAPITALS = "A-ZÀÂÇÈÉÊÎÔŒ"
NAMES = frozenset(
    name
    for group in (text.PEOPLE, text.DAYS, text.MONTHS, text.CITIES, ["english", "french", "american"])
    for name in group
    if "%" not in name
) - {"march", "may", "mary"} | {"mary", "i", "i'm", "i'll", "i've", "i'd"}
QUESTION_OPENERS = frozenset(
    "what how where who why when which whose is are was were does did do can could would will should am isn't aren't".split()
)


def capitalised(sentence: str) -> str:
    """Makes the first letter a capital."""
    return sentence[:1].upper() + sentence[1:]


def english(sentence: str) -> str:
    """Adds capitals, a comma before "but", and a full stop or a question mark to a normalised English sentence."""
    words = [word.capitalize() if word in NAMES else word for word in sentence.split()]
    for i in range(1, len(words)):
        if words[i] in ("march", "may") and words[i - 1] == "of":
            words[i] = words[i].capitalize()
    # A helper opens a question only with a subject behind it: "will" alone, or a string of words, is none.
    asked = len(words) > 2 and sentence.split()[0] in QUESTION_OPENERS
    line = re.sub(r" but ", ", but ", " ".join(words))
    return capitalised(line) + ("?" if asked else ".")


def tidy(sentence: str) -> str | None:
    """Reduces a transcript that people wrote to the characters of the tokenizer; None where that loses something."""
    line = unicodedata.normalize("NFC", sentence)
    line = re.sub("[’‘`´]", "'", line).replace("…", ".")
    line = re.sub("[;:]", ",", re.sub('[«»"“”()–—]|--', " ", line)).replace("!", ".")
    line = re.sub(r"\s+([.,?])", r"\1", re.sub(r"\s+", " ", line)).strip(" ,.'-")
    line = re.sub(r"([.,?])[.,]+", r"\1", line)
    if not line or re.search(f"[^{LETTERS}{CAPITALS}.,?' -]", line):
        return None
    return capitalised(line) + ("" if line[-1] == "?" else ".")


def elided(line: str) -> str:
    """Elides and contracts a French line: parce que il becomes parce qu'il, de le becomes du, à les becomes aux.

    le, la, de, que, je and ne lose their vowel before another one and before h, which is taken to be silent.
    """
    line = re.sub(r"\b([Ll]|[Dd]|[Qq]u|[Jj]|[Nn])(?:e|a) (?!onze)(?=[aeiouhàâéèêîôœ])", r"\1'", line)
    line = re.sub(r"\bde le ", "du ", re.sub(r"\bde les ", "des ", line))
    return re.sub(r"\bà le ", "au ", re.sub(r"\bà les ", "aux ", line))


def spoken(sentence: str) -> str:
    """Reduces a sentence to what is pronounced: lower-case words of letters and apostrophes, no hyphens or punctuation."""
    line = unicodedata.normalize("NFC", sentence).lower().replace("’", "'")
    words = re.sub(f"[^{LETTERS}' ]+", " ", line).split()
    return " ".join(word.strip("'") for word in words if word.strip("'"))
