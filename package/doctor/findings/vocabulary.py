"""A vocabulary that is missing, or of another size than the graph's scores."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.spec import DURATIONS
from nemoport.package.doctor.check import ERROR, WARNING, Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    found, scores = examined.folder.vocabularies, model.n_scores
    if not model.head:
        yield Found(model.name, "a decoder and a joint, or a CTC decoder, beside the encoder", _others(model), ERROR)
    if not found:
        yield Found(model.name, "tokens.txt, vocab.txt, vocab.json, tokenizer.json or tokenizer.model", "none", WARNING)
    elif scores and not any(scores in _sizes(len(one.pieces), bool(one.blanks), model.head) for one in found):
        sizes = ", ".join(f"{one.name}: {len(one.pieces)}" for one in found)
        yield Found(model.name, f"a vocabulary for {scores} scores", sizes, ERROR)


def _others(model: ForeignModel) -> str:
    return ", ".join(f"{part.name}: {part.ports.role}" for part in model.parts[1:]) or "the encoder alone"


def _sizes(pieces: int, has_blank: bool, head: str) -> tuple[int, ...]:
    """The numbers of scores that go with so many pieces."""
    tokens = pieces if has_blank else pieces + 1
    return (tokens,) if head == "ctc" else (tokens, tokens + len(DURATIONS))


CHECK = Check(
    "a vocabulary or a decoder that is missing or of another model",
    "Ids are spelled as other pieces: the text is of words that nobody said. Without a vocabulary each user takes one from "
    "somewhere else.",
    "Put the checkpoint's own vocabulary beside the graphs.",
    in_model=find,
)
