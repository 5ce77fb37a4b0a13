"""Puts a transcript, NeMo's text and a variant's text beside each other, word by word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nemoport.score import is_unspaced, normalise, without_special
from nemoport.validate.details import SpokenWord

SHOWN = 400  # columns; what is behind them is counted
AROUND = 12  # columns that are shown on both sides of one that differs, of a text that is longer than SHOWN
MOST_UNITS = 5000  # of a text that are compared
LONGEST = 60  # characters of a word that are compared and shown
MOST_PAIRS = 20_000  # of words that are compared in characters, of one stretch that differs
ALONE = 1.0  # cost of a word that stands alone
SAME, BETTER, WORSE, OTHER = "same", "better", "worse", "other"  # the variant's word: as NeMo's; right alone; NeMo's was right


@dataclass(frozen=True)
class Unit:
    """A word, or a character of a language without spaces. key: what is compared; start, end: seconds, None where unknown."""

    text: str
    key: str
    start: float | None = None
    end: float | None = None


@dataclass
class Column:
    """What stands in one place of the three texts; None where a text has nothing. left_out: columns before it, not shown."""

    reference: Unit | None = None
    nemo: Unit | None = None
    own: Unit | None = None
    kind: str = field(default=SAME)
    left_out: int = 0


def aligned(reference: str, nemo: str, own: str, words: Sequence[SpokenWord], language: str = "") -> list[Column]:
    """Returns the columns of the alignment. reference: "" where there is none; words: of the variant, with times.

    The variant's words are compared with NeMo's as they are scored: case, punctuation and special tokens make no difference.
    """
    said = _units(own, language)
    timed = [unit for word in words for unit in _units(word["text"], language, word["start"], word["end"])]
    if [unit.key for unit in timed] == [unit.key for unit in said]:
        said = timed
    columns = _beside(
        [Column(reference=unit) for unit in _units(reference, language)], _units(nemo, language), "reference", "nemo"
    )
    columns = _beside(columns, said, "nemo", "own")
    for column in columns:
        column.kind = _kind(column, bool(reference.strip()))
    return _shortened(columns)


def _units(text: str, language: str, start: float | None = None, end: float | None = None) -> list[Unit]:
    text = without_special(text)
    parts = list("".join(text.split())) if is_unspaced(language) else text.split()
    shown = (part if len(part) <= LONGEST else f"{part[:LONGEST]}\u2026" for part in parts[:MOST_UNITS])
    return [Unit(part, normalise(part) or part, start, end) for part in shown]


def _beside(columns: list[Column], units: Sequence[Unit], anchor: str, row: str) -> list[Column]:
    """Puts `units` into the row `row`, each below the unit of the row `anchor` that it is aligned with."""
    anchored = [(place, found) for place, column in enumerate(columns) if (found := getattr(column, anchor)) is not None]
    places = [place for place, _ in anchored]
    made: list[Column] = []
    behind = 0  # columns that are in `made`
    loose: list[Unit] = []  # units that stand before the next column of the anchor's

    def place_until(end: int) -> None:
        """Takes the columns before `end`: those in which the anchor's row has nothing take what is loose."""
        nonlocal behind
        for column in columns[behind:end]:
            if loose:
                setattr(column, row, loose.pop(0))
            made.append(column)
        while loose:
            made.append(Column())
            setattr(made[-1], row, loose.pop(0))
        behind = end

    for theirs, ours in _pairs([unit for _, unit in anchored], units):
        if theirs is None and ours is not None:
            loose.append(units[ours])
        elif theirs is not None:
            place_until(places[theirs])
            if ours is not None:
                setattr(columns[behind], row, units[ours])
            made.append(columns[behind])
            behind += 1
    place_until(len(columns))
    return made


Pair = tuple[int | None, int | None]


def _pairs(theirs: Sequence[Unit], ours: Sequence[Unit]) -> Iterator[Pair]:
    """Yields the places of aligned units in order, None where one side has nothing. Words that differ are paired by likeness."""
    from rapidfuzz.distance import Levenshtein

    blocks = Levenshtein.editops([unit.key for unit in theirs], [unit.key for unit in ours]).as_matching_blocks()
    a = b = 0
    for block in blocks:  # the last one is empty
        for i, j in _similar(theirs[a : block.a], ours[b : block.b]):
            yield (None if i is None else a + i, None if j is None else b + j)
        yield from ((block.a + k, block.b + k) for k in range(block.size))
        a, b = block.a + block.size, block.b + block.size


def _similar(theirs: Sequence[Unit], ours: Sequence[Unit]) -> list[Pair]:
    """Aligns words that differ, by how much they differ in characters."""
    if len(theirs) * len(ours) > MOST_PAIRS:
        count = min(len(theirs), len(ours))
        rest: list[Pair] = [(i, None) for i in range(count, len(theirs))]
        return [*((i, i) for i in range(count)), *rest, *((None, j) for j in range(count, len(ours)))]
    from rapidfuzz.distance import Levenshtein

    beside = [[2 * ALONE * Levenshtein.normalized_distance(one.key, other.key) for other in ours] for one in theirs]
    costs: dict[tuple[int, int], float] = {(i, 0): ALONE * i for i in range(len(theirs) + 1)} | {
        (0, j): ALONE * j for j in range(len(ours) + 1)
    }
    for i in range(1, len(theirs) + 1):
        for j in range(1, len(ours) + 1):
            paired = costs[i - 1, j - 1] + beside[i - 1][j - 1]
            costs[i, j] = min(paired, costs[i - 1, j] + ALONE, costs[i, j - 1] + ALONE)
    found: list[Pair] = []
    i, j = len(theirs), len(ours)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + beside[i - 1][j - 1]:
            i, j = i - 1, j - 1
            found.append((i, j))
        elif i and costs[i, j] == costs[i - 1, j] + ALONE:
            i -= 1
            found.append((i, None))
        else:
            j -= 1
            found.append((None, j))
    return found[::-1]


def _kind(column: Column, has_reference: bool) -> str:
    reference, nemo, own = (normalise(unit.text) if unit else "" for unit in (column.reference, column.nemo, column.own))
    if own == nemo:
        return SAME
    if has_reference and own == reference:
        return BETTER
    return WORSE if has_reference and nemo == reference else OTHER


def _shortened(columns: list[Column]) -> list[Column]:
    """Of a long text, the columns around those that differ, at most SHOWN."""
    if len(columns) <= SHOWN:
        return columns
    near = {near for at, one in enumerate(columns) if one.kind != SAME for near in range(at - AROUND, at + AROUND + 1)}
    kept = [at for at in range(len(columns)) if at in near][:SHOWN]
    for before, at in zip([-1, *kept], kept, strict=False):
        columns[at].left_out = at - before - 1
    return [columns[at] for at in kept]
