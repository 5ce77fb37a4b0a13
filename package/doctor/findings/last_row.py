"""A last mel row of each chunk that the named program computes from fewer samples."""

from __future__ import annotations

from collections.abc import Iterator

from nemoport.foreign.folder import ForeignModel
from nemoport.package.doctor.check import NOTE, Check, Found
from nemoport.package.doctor.examined import Examined


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    known = examined.consumer
    if known and "last-row" in known.behaviour and model.encoder.ports.streaming:
        yield Found(
            model.name, "mel rows of whole windows of samples, as NeMo's", f"{known.name} {known.behaviour['last-row']}", NOTE
        )


CHECK = Check(
    "a short last mel row of each chunk",
    "The program computes the rows of a chunk from the samples of that chunk alone, and the last row's window reaches beyond "
    "them. Its features differ from NeMo's there, and now and then a word does: WER differed by -0.3 points (95 %: -1.2 to +0.4) "
    "on our reference.",
    "Nothing in the package changes it. Judge the program by its own texts, as docs/consumers.md does.",
    ("https://github.com/microsoft/onnxruntime-genai",),
    in_model=find,
)
