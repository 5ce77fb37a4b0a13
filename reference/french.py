"""French sentences for the reference recipe, with capitals and punctuation, and what is held out from training.

As in ``text``, a tenth of the grammar sentences, by hash, and the starred words of ``text/fr_unseen_*.txt`` are kept
from training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from . import french_grammar, french_prose, text, written

FUNCTION_WORDS = (
    "le la les un une des et de à il elle je tu nous vous ils que qui ne pas est sont a ont dans sur avec pour par plus "
    "tout mais ou où si comme très"
).split()
# Of verb forms that speech hardly has; dictionaries are full of them.
RARE_ENDINGS = re.compile(
    "(ass(e|es|ent|iez|ions)|[uie]ss(es|iez|ions)|[âîû](mes|tes|t)|[aiu]s|èrent|[iu]rent|eraient|erions|eriez)$"
)


def written_form(sentence: str) -> str:
    """Adds capital and full stop to a drawn sentence. Raises ValueError on one that ``written.tidy`` refuses."""
    if not (line := written.tidy(sentence)):
        raise ValueError(f"{sentence!r} has a character that is not in written.LETTERS; mend the word list that it is from")
    return line


def held_out_words() -> frozenset[str]:
    """Starred words of both unseen files and their simple inflections, in spoken form (``written.spoken``)."""
    lines = "\n".join(path.read_text() for path in sorted(text.TEXT_FOLDER.glob("fr_unseen_*.txt")))
    words = {written.spoken(word) for word in re.findall(rf"\*([{written.LETTERS}{written.CAPITALS}]+)", lines)}
    stems = words | {word[:-1] for word in words if word[-1] in "sx"}
    return frozenset(stem + ending for stem in stems for ending in ("", "s", "x", "e", "es"))


def unseen_sentences(name: str) -> list[str]:
    """Sentences of ``text/fr_unseen_<name>.txt`` (eval or calibration), stars removed."""
    return [line.replace("*", "") for line in (text.TEXT_FOLDER / f"fr_unseen_{name}.txt").read_text().splitlines()]


def grammar_held_out(sentence: str) -> bool:
    """Checks whether a grammar sentence, written or spoken, is kept from training."""
    return text.grammar_held_out(written.spoken(sentence))


def trainable(sentence: str, held_out: frozenset[str]) -> bool:
    """Checks whether a written sentence holds no held-out word and is no held-out grammar sentence."""
    words = re.sub("'", " ", written.spoken(sentence)).split()
    return not held_out.intersection(words) and not grammar_held_out(sentence)


def grammar_sentences(seed: str, held_out: bool) -> Iterator[str]:
    """Draws written grammar sentences of one side of the split, without end."""
    rng = random.Random(f"french grammar {seed}")
    while True:
        sentence = written_form(french_grammar.sentence(rng))
        if grammar_held_out(sentence) == held_out:
            yield sentence


class TextSource:
    """Source of written French training sentences; ``words`` are dictionary words, ``transcripts`` tidied sentences."""

    def __init__(self, words: list[str], transcripts: list[str], seed: str):
        self.held_out = held_out = held_out_words()
        self.rng = random.Random(f"french corpus {seed}")
        self.grammar = grammar_sentences(f"train {seed}", held_out=False)
        self.transcripts = sorted({line for line in transcripts if trainable(line, held_out)})
        self.known = sorted(
            {word for line in french_prose.NOUNS_M + french_prose.NOUNS_F for word in line.split("%")}
            | {word for line in self.transcripts for word in written.spoken(line).split()}
        )
        self.words = (
            sorted(
                {word for word in words if re.fullmatch(f"[{written.LETTERS}]{{3,12}}", word) and not RARE_ENDINGS.search(word)}
                - held_out
            )
            or self.known
        )

    def word(self) -> str:
        """Draws one word: a function word, one of prose and transcripts, or one of the dictionary."""
        kind = self.rng.random()
        return self.rng.choice(FUNCTION_WORDS if kind < 0.35 else self.known if kind < 0.65 else self.words)

    def sentence(self) -> str:
        """Draws one sentence of any kind, what is held out included."""
        kind = self.rng.random()
        if kind < 0.3:
            return next(self.grammar)
        if kind < 0.62:
            return french_prose.sentence(self.rng)
        if kind < 0.72:
            return " ".join(self.rng.choice(self.words) for _ in range(self.rng.randint(1, 3)))
        if kind < 0.8 and self.transcripts:
            return self.rng.choice(self.transcripts)
        return " ".join(self.word() for _ in range(self.rng.randint(3, 10)))

    def draw(self) -> str:
        """Draws one written sentence of at most 20 words, free of whatever is held out."""
        while True:
            line = written.tidy(self.sentence())
            if line and trainable(line, self.held_out) and len(line.split()) <= 20:
                return line
