"""Blank that is not the last piece, is not listed, or is stated as another."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignFolder, ForeignModel
from nemoport.foreign.spec import DURATIONS
from nemoport.foreign.vocabulary import LINES, Vocabulary
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined) -> Iterator[Found]:
    folder = examined.folder
    scores = {model.n_scores for model in folder.models if model.n_scores}
    for one in folder.vocabularies:
        last = len(one.pieces) - 1
        if one.blanks and last not in one.blanks:
            yield Found(one.name, f"blank as the last piece, {last}", f"{one.pieces[one.blanks[0]]} as piece {one.blanks[0]}")
        elif not one.blanks and (why := _needed(examined, one)):
            yield Found(one.name, f"<blk> as the last piece: {why}", f"{last + 1} pieces, the last is {one.pieces[-1]!r}")
    if len(scores) == 1:
        yield from _stated(folder, scores.pop())


def _needed(examined: Examined, vocabulary: Vocabulary) -> str:
    """Why a list of pieces has to hold blank; "" where its place is stated elsewhere, or readers add it."""
    known, folder = examined.consumer, examined.folder
    if vocabulary.form != LINES:
        return ""
    if known and known.blank:
        return f"{known.title} finds it there"
    return "" if folder.settings.of("blank") or folder.settings.spec else "nothing else states which id it is"


def _stated(folder: ForeignFolder, scores: int) -> Iterator[Found]:
    """Ids that are stated: the last score is blank's, before a TDT's durations."""
    sizes = (scores - 1,) if any(model.head == "ctc" for model in folder.models) else (scores - 1, scores - 1 - len(DURATIONS))
    for one in folder.settings.of("blank"):
        if isinstance(one.value, int) and one.value not in sizes:
            yield Found(one.place, f"blank {sizes[0]}, the last of {scores} scores", str(one.value))


def of_model(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    """A program that takes blank for 0 where none is stated."""
    if examined.consumer and examined.consumer.name == "genai" and not examined.folder.settings.of("blank"):
        yield Found(model.name, "blank_id in genai_config.json", "none, which is read as 0")


CHECK = Check(
    "blank missing or not last",
    "NeMo's blank is behind all tokens. A program that takes another id for it emits blanks as words, or drops a token "
    "wherever it occurs; a transducer that begins with another token than blank loses the first words.",
    "Write the vocabulary with <blk> as its last line, and state blank_id as the number of tokens.",
    ("https://github.com/altunenes/parakeet-rs/issues/115", "https://github.com/FluidInference/FluidAudio/issues/638"),
    in_folder=find,
    in_model=of_model,
)
