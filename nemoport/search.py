"""The decoding that a recognizer's options ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nemoport.beam import BeamSearch
from nemoport.errors import UsageError
from nemoport.hotwords import DEFAULT_BOOST, Hotwords
from nemoport.spec import CTC, ModelSpec

FINAL_S = 1.0  # with a beam, a live stream's text of so long ago is final


def search_of(spec: ModelSpec, pieces: list[str], beam: int, hotwords: Sequence[str], boost: float | None) -> BeamSearch:
    """Returns the settings of a search: with a beam of 1 those of greedy decoding. Raises UsageError."""
    search = BeamSearch(beam, final_enc_frames=round(FINAL_S / spec.frame_seconds) if spec.streaming else None)
    if isinstance(hotwords, str):
        raise UsageError("Hotwords are a list.", expected="a list of phrases", found=repr(hotwords), todo="put it in brackets")
    if spec.head == CTC and (search.width > 1 or hotwords or boost is not None):
        raise UsageError(
            "A CTC model is decoded greedily only.", expected="no beam and no hotwords", found="one", todo="leave them out"
        )
    if hotwords or boost is not None:
        search = replace(search, hotwords=Hotwords(pieces, hotwords, DEFAULT_BOOST if boost is None else boost))
    return search


def without_reset(spec: ModelSpec) -> ModelSpec:
    """Returns the spec by which the decoder goes on behind events. Raises UsageError for a model whose decoder is not reset."""
    if spec.events is None or not spec.resetting:
        expected, todo = "a transducer that marks ends of utterances", "leave it out"
        raise UsageError("There is no reset to leave out.", expected=expected, found=spec.kind, todo=todo)
    return replace(spec, events=replace(spec.events, resets=False))
