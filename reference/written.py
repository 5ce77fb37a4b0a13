"""The written form of a sentence, with capitals and punctuation, by rule; and its spoken form, which is what is scored.

The rules look at the text alone, so that a clip made from lower-case text can be given them afterwards.
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
    return sentence[:1].upper() + sentence[1:]


def english(sentence: str) -> str:
    """A normalised English sentence with capitals, a comma before "but", and a full stop or a question mark."""
    words = [word.capitalize() if word in NAMES else word for word in sentence.split()]
    for i in range(1, len(words)):
        if words[i] in ("march", "may") and words[i - 1] == "of":
            words[i] = words[i].capitalize()
    # A helper opens a question only with a subject behind it: "will" alone, or a string of words, is none.
    asked = len(words) > 2 and sentence.split()[0] in QUESTION_OPENERS
    line = re.sub(r" but ", ", but ", " ".join(words))
    return capitalised(line) + ("?" if asked else ".")


def tidy(sentence: str) -> str | None:
    """A transcript as people wrote it, in the characters that the tokenizer knows; None where that loses something."""
    line = unicodedata.normalize("NFC", sentence)
    line = re.sub("[’‘`´]", "'", line).replace("…", ".")
    line = re.sub("[;:]", ",", re.sub('[«»"“”()–—]|--', " ", line)).replace("!", ".")
    line = re.sub(r"\s+([.,?])", r"\1", re.sub(r"\s+", " ", line)).strip(" ,.'-")
    line = re.sub(r"([.,?])[.,]+", r"\1", line)
    if not line or re.search(f"[^{LETTERS}{CAPITALS}.,?' -]", line):
        return None
    return capitalised(line) + ("" if line[-1] == "?" else ".")


def spoken(sentence: str) -> str:
    """Lower-case words of letters and apostrophes: case, hyphens and punctuation are not heard."""
    line = unicodedata.normalize("NFC", sentence).lower().replace("’", "'")
    words = re.sub(f"[^{LETTERS}' ]+", " ", line).split()
    return " ".join(word.strip("'") for word in words if word.strip("'"))
