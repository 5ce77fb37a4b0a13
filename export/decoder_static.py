"""Prediction network and joint for runtimes that take no dynamic shapes: one stream, one token, a fixed number of frames.

Apart, so that a token that several frames are joined with is predicted once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.export.decoder import DecoderJoint
from nemoport.export.encoder_static import use_linear


class Predict(nn.Module):
    """One token -> what the joint is to be given of it, and the states after it. The LSTM is spelled out: converters know
    its products and not the whole."""

    def __init__(self, decoder: DecoderJoint):
        super().__init__()
        use_linear(decoder)
        self.embed, self.lstm, self.pred = decoder.embed, decoder.lstm, decoder.pred

    def forward(self, target, input_states_1, input_states_2):
        """target i32 [1], input_states_1 and _2 f32 [layers, 1, hidden] -> prediction f32 [1, joint_hidden],
        output_states_1 and _2."""
        x, hidden, cell = self.embed(target), [], []
        for layer in range(self.lstm.num_layers):
            x, memory = self._cell(layer, x, input_states_1[layer], input_states_2[layer])
            hidden.append(x)
            cell.append(memory)
        return {
            "prediction": self.pred(x),
            "output_states_1": torch.stack(hidden),
            "output_states_2": torch.stack(cell),
        }

    def _cell(self, layer: int, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        w_x, w_h, b_x, b_h = (getattr(self.lstm, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        gates = F.linear(x, w_x, b_x) + F.linear(hidden, w_h, b_h)
        into, forget, new, out = gates.chunk(4, -1)  # torch's order
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell


class Joint(nn.Module):
    """Raw scores of encoder frames behind a prefix."""

    def __init__(self, decoder: DecoderJoint):
        super().__init__()
        use_linear(decoder)
        self.enc, self.head = decoder.enc, decoder.head

    def forward(self, encoder_outputs, prediction):
        """encoder_outputs f32 [1, T, d], prediction f32 [1, joint_hidden] -> scores f32 [1, T, n_scores]."""
        return {"scores": self.head(F.relu(self.enc(encoder_outputs) + prediction))}
