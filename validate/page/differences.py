"""The section of the page on single utterances whose text is not NeMo's, the most different ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nemoport.spec import context_name
from nemoport.validate.details import Difference, Recording
from nemoport.validate.page.alignment import Column, aligned
from nemoport.validate.page.clips import Clips
from nemoport.validate.page.sources import Judged

CARDS = 30  # utterances that are shown; more are named
GROUPS = 8  # texts of an utterance that are shown
COLUMNS = 15_000  # words, of all texts together, that the page shows
NAMED = 400  # utterances that are named


@dataclass
class Group:
    """A text that some variants have in common. runs: (variant, context) of each."""

    first: Difference
    runs: list[tuple[Judged, str]] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)

    @property
    def labels(self) -> list[tuple[str, list[str]]]:
        """(variant, its contexts), each variant once."""
        found: dict[str, list[str]] = {}
        for one, context in self.runs:
            found.setdefault(one.name, []).append(context)
        return list(found.items())

    @property
    def places(self) -> str:
        """The places of the variants in the page, for its filter."""
        return " ".join(str(place) for place in sorted({one.place for one, _ in self.runs}))


@dataclass
class Card:
    """An utterance, with every text of it that is not NeMo's."""

    recording: Recording
    rate_hz: int
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)  # by NeMo's text and the variant's
    audio: str = ""
    silent: str = ""  # why there is no audio

    @property
    def distance(self) -> int:
        return max(group.first["distance"] for group in self.groups.values())

    @property
    def shown(self) -> list[Group]:
        """The groups, the most different and the most common first."""
        return sorted(self.groups.values(), key=lambda g: (-g.first["distance"], -len(g.runs)))[:GROUPS]


def differences(judged: Sequence[Judged]) -> dict[str, Any]:
    """Returns the cards, the names of utterances that have none, and how many runs of each variant differ."""
    cards: dict[tuple[str, str], Card] = {}
    for one in judged:
        for found in one.texts["differences"] if one.texts else ():
            if one.texts is None or found["recording"] >= len(one.texts["recordings"]):
                continue
            recording = one.texts["recordings"][found["recording"]]
            card = cards.setdefault((recording["sha256"], recording["id"]), Card(recording, one.texts["rate_hz"]))
            group = card.groups.setdefault((found["nemo"], found["own"]), Group(found))
            group.runs.append((one, context_name(found["lookahead"])))
    ordered = sorted(cards.values(), key=lambda card: (-card.distance, -sum(len(g.runs) for g in card.groups.values())))
    clips, shown, room = Clips(), 0, COLUMNS
    for card in ordered[:CARDS]:
        for group in card.shown:
            texts = (card.recording["text"], group.first["nemo"], group.first["own"])
            group.columns = aligned(*texts, group.first["words"], card.recording["language"])
            room -= len(group.columns)
        if room < 0:
            break
        card.audio, card.silent = clips.of(card.recording, card.rate_hz)
        shown += 1
    rest = [card.recording["id"] for card in ordered[shown:]]
    return {
        "cards": ordered[:shown],
        "rest": rest[:NAMED],
        "more": max(0, len(rest) - NAMED),
        "counts": [
            (one, one.texts["differing"], len(one.texts["words"]) * len(one.texts["runs"])) for one in judged if one.texts
        ],
        "clips": clips,
    }
