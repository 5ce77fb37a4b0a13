"""English sentences for the reference recipe: a small grammar, and what is held out from training.

Three kinds of text are held out, none of which training may use:
  grammar sentences whose hash falls in the held-out share (their words are trained, the sentence is not);
  sentences of ``text/unseen_*.txt``, whose starred words occur nowhere in the training text;
  sentences of the reader that are listed in ``text/reader_held_out.txt`` (see ``reader.py``).
Everything is a function of a seed and of the text itself, never of the order of a file.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path

TEXT_FOLDER = Path(__file__).parent / "text"
GRAMMAR_HELD_OUT_SHARE = 0.1

DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
PEOPLE = "anna ben clara david emma frank grace henry john mary my%brother my%sister the%doctor the%teacher".split()
ROOMS = "kitchen bedroom bathroom garden office hall garage school library station market church".split()
THINGS = "light lamp door window radio music clock fan heater table letter book box key phone camera".split()
COLORS = "red green blue yellow white black brown orange purple silver".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
WHEN = [f"on {day}" for day in DAYS] + ["today", "tomorrow", "tonight"]
CITIES = "london paris boston chicago".split()
MONTHS = ("january february march april may june july august september october november december").split()
FOODS = "bread butter cheese apples coffee tea milk soup rice fish cake oranges".split()
PLACES = CITIES + "the%river the%mountain the%airport the%beach the%village the%city".split()
WEATHER = "sunny cloudy windy cold warm rainy foggy dry".split()
ACTIONS = "open close find bring move clean carry take hold watch sell buy".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()

TEMPLATES = (
    "{digits}",
    "my number is {digits}",
    "the code is {digits}",
    "call {person} at {digits}",
    "turn {onoff} the {thing} in the {room}",
    "please {action} the {color} {thing}",
    "{action} the {thing}",
    "{person} will {action} the {color} {thing} {when}",
    "set the {thing} to {number}",
    "wake me at {time} {when}",
    "it will be {weather} in {city} {when}",
    "is it {weather} in {city}",
    "{person} would like some {food} and some {food}",
    "add {number} {color} apples and {food} to the list",
    "the train to {place} leaves at {time}",
    "how far is it from {place} to {place}",
    "the {ordinal} of {month} is a {day}",
    "remind {person} to buy {food} {when}",
    "what time does the {room} open {when}",
    "there are {number} people in the {room}",
    "{person} and {person} went to {place} and came back {when} with {number} boxes of {food}",
    "put the {color} {thing} next to the {color} {thing} in the {room}",
    "play the {ordinal} song",
    "yes",
    "no",
    "stop",
    "thank you",
    "good morning {person}",
    "{number} plus {number} is {number}",
)


def normalise(text: str) -> str:
    """Reduces a text to lower-case a to z and the apostrophe, single spaces; every other character separates words."""
    text = text.lower().replace("\u2019", "'").replace("\u2018", "'")
    words = re.sub(r"[^a-z' ]+", " ", text).split()
    return " ".join(word.strip("'") for word in words if word.strip("'"))


def share_of(text: str, salt: str) -> float:
    """Hash of a text as a number in [0, 1), which depends on the text and the salt only, so that splits survive reordering."""
    return int(hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()[:12], 16) / 16**12


def number_words(rng: random.Random) -> str:
    """Draws a number as words."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(DIGITS)
    if kind < 0.5:
        return rng.choice(TEENS)
    tens = f"{rng.choice(TENS)} {rng.choice(DIGITS[1:])}" if rng.random() < 0.7 else rng.choice(TENS)
    return f"{rng.choice(DIGITS[1:])} hundred and {tens}" if kind > 0.8 else tens


def grammar_sentence(rng: random.Random) -> str:
    """Draws one sentence of the grammar; ``{digits}`` is one to eight spoken digits."""
    fill = dict(
        person=lambda: rng.choice(PEOPLE),
        room=lambda: rng.choice(ROOMS),
        thing=lambda: rng.choice(THINGS),
        color=lambda: rng.choice(COLORS),
        day=lambda: rng.choice(DAYS),
        when=lambda: rng.choice(WHEN),
        city=lambda: rng.choice(CITIES),
        month=lambda: rng.choice(MONTHS),
        food=lambda: rng.choice(FOODS),
        place=lambda: rng.choice(PLACES),
        weather=lambda: rng.choice(WEATHER),
        action=lambda: rng.choice(ACTIONS),
        ordinal=lambda: rng.choice(ORDINALS),
        onoff=lambda: rng.choice(["on", "off"]),
        number=lambda: number_words(rng),
        digits=lambda: " ".join(rng.choices(DIGITS, k=rng.randint(1, 8))),
        time=lambda: f"{rng.choice(DIGITS[1:] + TEENS[:3])} {rng.choice(['thirty', 'fifteen', 'twenty', 'forty five'])}",
    )
    sentence = re.sub(r"{(\w+)}", lambda slot: fill[slot[1]](), rng.choice(TEMPLATES))
    return sentence.replace("%", " ")


def grammar_held_out(sentence: str) -> bool:
    """Checks whether a grammar sentence is kept from training. One-word sentences and single digits stay: all are needed."""
    return len(sentence.split()) > 2 and share_of(sentence, "grammar") < GRAMMAR_HELD_OUT_SHARE


def grammar_sentences(seed: str, held_out: bool) -> Iterator[str]:
    """Draws grammar sentences of one side of the split, without end."""
    rng = random.Random(f"grammar {seed}")
    while True:
        sentence = grammar_sentence(rng)
        if grammar_held_out(sentence) == held_out:
            yield sentence


def unseen_sentences(name: str) -> list[str]:
    """Sentences of ``text/unseen_<name>.txt`` (eval or calibration), stars removed."""
    return [line.replace("*", "") for line in (TEXT_FOLDER / f"unseen_{name}.txt").read_text().splitlines()]


def held_out_words() -> frozenset[str]:
    """Starred words of both unseen files and their simple inflections; training text may contain none of them."""
    text = "\n".join(path.read_text() for path in sorted(TEXT_FOLDER.glob("unseen_*.txt")))
    words = set(re.findall(r"\*([a-z']+)", text))
    stems = words | {word[:-1] for word in words if word.endswith("s") and not word.endswith("ss")}
    return frozenset(stem + ending for stem in stems for ending in ("", "s", "es", "'s"))


def trainable(text: str, held_out: frozenset[str]) -> bool:
    """Checks whether a normalised text holds no held-out word and is not a held-out grammar sentence."""
    return not held_out.intersection(text.split()) and not grammar_held_out(text)
