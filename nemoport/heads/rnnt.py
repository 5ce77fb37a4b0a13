"""RNNT: a transducer that stays on a frame after each token and goes on by one at blank. Decoded as a TDT whose only duration
is 0."""

from __future__ import annotations

from nemoport.beam import Beam, BeamSearch
from nemoport.confidence import Confidence
from nemoport.decode import GreedyState
from nemoport.heads import DecodingState, Head
from nemoport.interface import F32, I32, Interface, Tensor
from nemoport.spec import DecodingSpec, ModelSpec


def transducer_interface(spec: ModelSpec) -> Interface:
    """Returns the interface of NeMo's fused prediction network and joint (`decoder_joint`)."""
    state = Tensor(F32, (spec.decoding.pred_layers, None, spec.decoding.pred_hidden))
    return Interface(
        {
            "encoder_outputs": Tensor(F32, (None, spec.encoder.d_model, None)),
            "targets": Tensor(I32, (None, None)),
            "target_length": Tensor(I32, (None,)),
            "input_states_1": state,
            "input_states_2": state,
        },
        {
            "outputs": Tensor(F32, (None, None, None, spec.decoding.n_scores)),
            "prednet_lengths": Tensor(I32, (None,)),
            "output_states_1": state,
            "output_states_2": state,
        },
    )


def start_transducer(spec: DecodingSpec, search: BeamSearch | None, confidence: Confidence) -> DecodingState:
    """Returns the decoding state of a new stream: a beam with a search of two paths or more, else a greedy one."""
    if search and search.width > 1:
        return Beam.initial(search, spec, confidence)
    return GreedyState.initial(spec, confidence, search.hotwords if search else None)


HEAD = Head("rnnt", transducer_interface, start_transducer)
