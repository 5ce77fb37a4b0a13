"""CTC: each encoder frame has one token or blank; equal tokens on consecutive frames are one."""

from __future__ import annotations

from nemoport.beam import BeamSearch
from nemoport.confidence import Confidence
from nemoport.ctc import CtcState
from nemoport.ctc_beam import CtcBeam
from nemoport.heads import DecodingState, Head
from nemoport.interface import F32, Interface, Tensor
from nemoport.spec import DecodingSpec, ModelSpec


def interface(spec: ModelSpec) -> Interface:
    """Returns the interface of the graph that scores frames, with NeMo's name of its output."""
    return Interface(
        {"encoder_outputs": Tensor(F32, (None, spec.encoder.d_model, None))},
        {"logprobs": Tensor(F32, (None, None, spec.decoding.n_scores))},
    )


def start(spec: DecodingSpec, search: BeamSearch | None, confidence: Confidence) -> DecodingState:
    """Returns the decoding state of a new stream: a beam with a search of two paths or more, else a greedy one."""
    if search and search.width > 1:
        return CtcBeam.initial(search, spec.blank_id, confidence)
    hotwords = search.hotwords if search else None
    return CtcState(confidence, hotwords, hotwords.start if hotwords else ())


HEAD = Head("ctc", interface, start)
