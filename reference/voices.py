"""Voices of espeak-ng, split three ways: training, evaluation and calibration share no variant.

A voice is an accent and a variant (formants, pitch, breath); the accents of a language are common to the three sides.
Variants that whisper, sing or imitate machines are left out: people do not sound like that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

ACCENTS = ("en-us", "en-us", "en-us-nyc", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
ACCENTS_BY_LANGUAGE = dict(
    en=ACCENTS, fr=("fr-fr", "fr-fr", "fr-be", "fr-ch"), de=("de",), es=("es", "es", "es-419"), hi=("hi",), ja=("ja",)
)
VARIANTS = {
    "eval": ("linda", "Michael", "quincy", "Annie", "pablo", "steph2"),
    "calibration": ("shelby", "benjamin", "belinda", "john", "Hugo"),
    "train": (
        "",
        "m1",
        "m2",
        "m3",
        "m4",
        "m5",
        "m6",
        "m7",
        "m8",
        "f1",
        "f2",
        "f3",
        "f4",
        "f5",
        "adam",
        "Alex",
        "Alicia",
        "Andrea",
        "Andy",
        "anika",
        "antonio",
        "aunty",
        "boris",
        "caleb",
        "david",
        "Denis",
        "Diogo",
        "ed",
        "edward",
        "edward2",
        "Gene",
        "Gene2",
        "gustave",
        "Henrique",
        "iven",
        "iven2",
        "iven3",
        "Jacky",
        "klatt",
        "klatt2",
        "klatt3",
        "klatt4",
        "Lee",
        "marcelo",
        "Marco",
        "Mario",
        "max",
        "michel",
        "miguel",
        "Mike",
        "Nguyen",
        "norbert",
        "paul",
        "pedro",
        "rob",
        "robert",
        "sandro",
        "steph",
        "steph3",
        "travis",
        "victor",
        "zac",
        "grandma",
        "grandpa",
    ),
}

FLITE = ("slt", "slt", "rms", "awb")  # recorded people, units joined: the step from espeak-ng to a reader


@dataclass(frozen=True)
class Voice:
    """A synthesiser's voice and its settings; pitch 0 to 99; word_gap_10ms in units of 10 ms.

    ``name`` is as espeak-ng's -v takes it, or "flite:<voice>". flite has no pitch and no gap: it takes the rate alone.
    """

    name: str
    words_per_minute: int
    pitch: int
    word_gap_10ms: int

    def command(self, sentence: str) -> list[str]:
        """Command line that writes the sentence to stdout as a WAV file."""
        if self.name.startswith("flite:"):
            stretch = 160 / self.words_per_minute
            return [
                "flite",
                "-voice",
                self.name[6:],
                "--setf",
                f"duration_stretch={stretch:.3f}",
                "-t",
                sentence,
                "-o",
                "/dev/stdout",
            ]
        return [
            "espeak-ng",
            "-v",
            self.name,
            "-s",
            str(self.words_per_minute),
            "-p",
            str(self.pitch),
            "-g",
            str(self.word_gap_10ms),
            "--stdout",
            sentence,
        ]


def draw(rng: random.Random, side: str, language: str = "en") -> Voice:
    """Draws a voice of one side of the split, "train", "eval" or "calibration", or (training too) of "flite".

    ``language`` is a key of ``ACCENTS_BY_LANGUAGE``; flite speaks English alone.
    """
    if side == "flite":
        return Voice(f"flite:{rng.choice(FLITE)}", rng.randint(130, 190), 50, 0)
    variant = rng.choice(VARIANTS[side])
    name = rng.choice(ACCENTS_BY_LANGUAGE[language]) + (f"+{variant}" if variant else "")
    return Voice(name, rng.randint(130, 190), rng.randint(25, 75), rng.choice((0, 0, 0, 1, 2)))
