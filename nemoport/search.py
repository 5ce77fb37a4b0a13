"""The decoding that a recognizer's options ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nemoport.beam import BeamSearch
from nemoport.errors import UsageError
from nemoport.hotwords import DEFAULT_BOOST, Hotwords
from nemoport.language_model import ArpaFile, LanguageModel
from nemoport.spec import CTC, ModelSpec

FINAL_S = 1.0  # with a beam, a live stream's text of so long ago is final


def search_of(
    spec: ModelSpec,
    pieces: list[str],
    beam: int,
    hotwords: Sequence[str],
    boost: float | None,
    language_model: ArpaFile | None = None,
) -> BeamSearch:
    """Returns the settings of a search: with a beam of 1 those of greedy decoding. Raises UsageError."""
    search = BeamSearch(beam, final_enc_frames=_final_enc_frames(spec) if spec.streaming else None)
    if isinstance(hotwords, str):
        raise UsageError("Hotwords are a list.", expected="a list of phrases", found=repr(hotwords), todo="put it in brackets")
    if language_model:
        if spec.head != CTC:
            what, todo = "A language model is of use to a CTC head only.", "leave it out; hotwords work with any head"
            raise UsageError(what, expected="a model whose kind ends in ctc", found=spec.kind, todo=todo)
        if beam < 2:
            what, todo = "A language model needs a beam search.", "choose a beam of 16"
            raise UsageError(what, expected="a beam of 2 or more", found=str(beam), todo=todo)
        search = replace(search, language_model=LanguageModel(language_model, pieces))
    if hotwords or boost is not None:
        search = replace(search, hotwords=Hotwords(pieces, hotwords, DEFAULT_BOOST if boost is None else boost))
    return search


def without_reset(spec: ModelSpec) -> ModelSpec:
    """Returns the spec by which the decoder goes on behind events. Raises UsageError for a model whose decoder is not reset."""
    if spec.events is None or not spec.resetting:
        expected, todo = "a transducer that marks ends of utterances", "leave it out"
        raise UsageError("There is no reset to leave out.", expected=expected, found=spec.kind, todo=todo)
    return replace(spec, events=replace(spec.events, resets=False))


def live_search(search: BeamSearch | None, spec: ModelSpec) -> BeamSearch | None:
    """Returns a search whose text is final after FINAL_S, as a live stream of a buffered model needs it."""
    return replace(search, final_enc_frames=_final_enc_frames(spec)) if search else None


def _final_enc_frames(spec: ModelSpec) -> int:
    return round(FINAL_S / spec.frame_seconds)
