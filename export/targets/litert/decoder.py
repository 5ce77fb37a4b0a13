"""Prediction network and joint, or a CTC decoder, for runtimes without dynamic shapes: one stream, one token, a fixed number of
frames.

Prediction network and joint are two modules, so that the prediction is computed once for a token that several frames are joined
with.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from nemoport.export.decoder import DecoderJoint
from nemoport.export.heads.ctc import CtcDecoder
from nemoport.export.lstm_step import lstm_step
from nemoport.export.targets.litert.encoder import use_linear


class Predict(nn.Module):
    """The prediction network, with the joint's projection of the prediction."""

    def __init__(self, decoder: DecoderJoint):
        super().__init__()
        use_linear(decoder)
        self.embed, self.lstm, self.pred = decoder.embed, decoder.lstm, decoder.pred

    def forward(self, target, input_states_1, input_states_2):
        """target i32 [1], input_states_1 and _2 f32 [layers, 1, hidden] -> prediction f32 [1, joint_hidden],
        output_states_1 and _2."""
        x, hidden, cell = lstm_step(self.lstm, self.embed(target), input_states_1, input_states_2)
        return {"prediction": self.pred(x), "output_states_1": hidden, "output_states_2": cell}


class Joint(nn.Module):
    """The joint: raw scores of encoder frames for the prediction of one prefix."""

    def __init__(self, decoder: DecoderJoint):
        super().__init__()
        use_linear(decoder)
        self.enc, self.head = decoder.enc, decoder.head

    def forward(self, encoder_outputs, prediction):
        """encoder_outputs f32 [1, T, d], prediction f32 [1, joint_hidden] -> scores f32 [1, T, n_scores]."""
        return {"scores": self.head(F.relu(self.enc(encoder_outputs) + prediction))}


class Ctc(nn.Module):
    """The CTC decoder: log-probabilities of encoder frames."""

    def __init__(self, decoder: CtcDecoder):
        super().__init__()
        use_linear(decoder)
        self.linear = decoder.linear

    def forward(self, encoder_outputs):
        """encoder_outputs f32 [1, T, d] -> scores f32 [1, T, n_scores]."""
        return {"scores": F.log_softmax(self.linear(encoder_outputs), -1)}
