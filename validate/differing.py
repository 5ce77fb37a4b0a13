"""Finds the runs whose texts differ from NeMo's, for `Texts` of details.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemoport.score import units
from nemoport.spec import Lookahead
from nemoport.speech.corpus import Utterance
from nemoport.validate.details import DIFFERENCES, DIFFERENCES_CHARACTERS, MOST_CHARACTERS, MOST_WORDS, Difference, Recording
from nemoport.validate.oracle import Record
from nemoport.validate.runs import UtteranceRun

Compared = Sequence[tuple[Lookahead, Sequence[UtteranceRun], Sequence[Record]]]  # lookahead, the artifact's runs, NeMo's


def differing(utterances: Sequence[Utterance], compared: Compared) -> dict[str, Any]:
    """Returns `differing`, `recordings` and `differences` of `Texts`, the most different runs first."""
    found = [
        (_distance(run.text, reference.text, utterance.language), index, lookahead, run, reference)
        for lookahead, runs, references in compared
        for index, (utterance, run, reference) in enumerate(zip(utterances, runs, references, strict=True))
        if run.text != reference.text
    ]
    recordings: dict[int, Recording] = {}
    differences: list[Difference] = []
    room = DIFFERENCES_CHARACTERS
    for distance, index, lookahead, run, reference in sorted(found, key=lambda one: (-one[0], one[1])):
        texts = (run.text, reference.text, utterances[index].text)
        taken = 2 * len(run.text) + sum(map(len, texts))
        if max(map(len, texts)) > MOST_CHARACTERS or taken > room or len(run.words) > MOST_WORDS:
            continue
        if len(differences) == DIFFERENCES:
            break
        room -= taken
        recordings.setdefault(index, _recording(utterances[index]))
        differences.append(
            {
                "recording": list(recordings).index(index),
                "lookahead": lookahead,
                "distance": distance,
                "nemo": reference.text,
                "own": run.text,
                "words": [{"text": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in run.words],
            }
        )
    return {"differing": len(found), "recordings": list(recordings.values()), "differences": differences}


def _distance(own: str, nemo: str, language: str) -> int:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(units(own, language).split(), units(nemo, language).split())


def _recording(utterance: Utterance) -> Recording:
    return {
        "id": utterance.id,
        "language": utterance.language,
        "text": utterance.text,
        "path": str(utterance.path.absolute()),
        "offset_s": float(utterance.offset_s),
        "duration_s": float(utterance.duration_s),
        "seconds": float(utterance.seconds),
        "sha256": utterance.sha256,
    }
