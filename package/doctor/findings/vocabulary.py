"""A vocabulary that is missing, or of another size than the graph's scores."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.spec import DURATIONS
from nemoport.foreign.vocabulary import TOKENIZER, Vocabulary
from nemoport.package.doctor.check import ERROR, WARNING, Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    found, scores = examined.folder.vocabularies, model.n_scores
    if not model.head:
        yield Found(model.name, "a decoder and a joint, or a CTC decoder, beside the encoder", _others(model), ERROR)
    if not found:
        yield Found(model.name, "tokens.txt, vocab.txt, vocab.json, tokenizer.json or tokenizer.model", "none", WARNING)
    elif scores and not any(scores in _sizes(one, model.head) for one in found):
        sizes = ", ".join(f"{one.name}: {len(one.pieces)}" for one in found)
        yield Found(model.name, f"a vocabulary for {scores} scores", sizes, ERROR)


def _others(model: ForeignModel) -> str:
    return ", ".join(f"{part.name}: {part.ports.role}" for part in model.parts[1:]) or "the encoder alone"


def _sizes(vocabulary: Vocabulary, head: str) -> list[int]:
    """The numbers of scores that go with a vocabulary. The blank of a tokenizer.json has any name, such as <pad>."""
    pieces = len(vocabulary.pieces)
    tokens = [pieces] if vocabulary.blanks else [pieces, pieces + 1] if vocabulary.form == TOKENIZER else [pieces + 1]
    return tokens if head == "ctc" else [*tokens, *(number + len(DURATIONS) for number in tokens)]


CHECK = Check(
    "a vocabulary or a decoder that is missing or of another model",
    "Ids are spelled as other pieces: the text is of words that nobody said. Without a vocabulary each user takes one from "
    "somewhere else.",
    "Put the checkpoint's own vocabulary beside the graphs.",
    in_model=find,
)
