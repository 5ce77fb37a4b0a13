"""A multilingual model whose language was traced into the graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.folder import ForeignFolder, ForeignModel
from nemoport.foreign.ports import MASK, PROMPT
from nemoport.foreign.spec import LEFT_MULTILINGUAL, MULTILINGUAL_TOKENS
from nemoport.package.doctor.check import Check, Found
from nemoport.package.doctor.examined import Examined, Opened
from nemoport.package.doctor.probe import frames_of, later_chunk
from nemoport.spec import ModelSpec
from nemoport.tokens import LANGUAGE_TAG

_SLOTS = (0, 1, 9, 101, 127)  # en-US, another, those of German and auto in the published dictionary, the last


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    inputs = model.encoder.ports.inputs
    if not model.encoder.ports.streaming:
        return
    opened = examined.opened(model)
    if PROMPT not in inputs and MASK not in inputs:
        if reason := _multilingual(examined.folder) or _left(opened.spec or examined.spec(model)):
            yield Found(model.name, f"an input for the language: {reason}", ", ".join(model.encoder.graph.interface.inputs))
        return
    try:
        yield from _run(model, opened)
    except ArtifactError:  # the check `runs` names it
        return


def _multilingual(folder: ForeignFolder) -> str:
    if spec := folder.settings.spec:
        return "config.json has a prompt" if spec.prompt else ""
    for one in folder.vocabularies:
        tags = sum(bool(LANGUAGE_TAG.fullmatch(piece.lstrip("\u2581"))) for piece in one.pieces)
        if len(one.pieces) >= MULTILINGUAL_TOKENS or tags > 1:
            return f"{one.name} has {len(one.pieces)} pieces, {tags} of them language tags"
    if stated := folder.settings.of("prompt"):
        return stated[0].place
    return "languages.json" if any(file.name.endswith("languages.json") for file in folder.files) else ""


def _left(spec: ModelSpec | None) -> str:
    left = spec.streaming.left_context_enc_frames if spec and spec.streaming else 0
    return f"a left context of {left} frames is the multilingual model's" if left == LEFT_MULTILINGUAL else ""


def _run(model: ForeignModel, opened: Opened) -> Iterator[Found]:
    if not opened.encoder or not opened.spec or opened.spec.streaming is None:
        return
    slots = [slot for slot in _SLOTS if slot < _slots(opened.spec)]
    feeds = later_chunk(opened.encoder, opened.spec, max(opened.spec.streaming.lookaheads))
    frames = [frames_of(opened.encoder, {**feeds, PROMPT: np.array([slot])})[0] for slot in slots]
    if len(frames) > 1 and all(np.array_equal(frames[0], other) for other in frames[1:]):
        yield Found(model.name, "frames that depend on the language", f"the same ones for the slots {', '.join(map(str, slots))}")


def _slots(spec: ModelSpec) -> int:
    return spec.prompt.slots if spec.prompt else 0


CHECK = Check(
    "a language that is built in",
    "Every recording is transcribed with the prompt that was traced, in that language or in none: NeMo's own export leaves the "
    "prompt out without a warning.",
    "Export the prompt as an input, with `nemoport export` or a wrapper that calls the model's prompt_kernel.",
    ("https://github.com/sonos/torch-to-nnef/pull/244", "https://github.com/altunenes/parakeet-rs/issues/102"),
    in_model=find,
    runs=True,
)
