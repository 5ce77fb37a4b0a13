"""One step of an LSTM as single operators: converters for runtimes of fixed shapes have no operator for a whole LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lstm_step(lstm: nn.LSTM, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs every layer of an LSTM for one token (torch.nn.LSTM has the formulas).

    x: f32 [1, n]; hidden, cell: f32 [layers, 1, hidden] -> output of the last layer f32 [1, hidden], next hidden, next cell.
    """
    hiddens, cells = [], []
    for layer in range(lstm.num_layers):
        w_x, w_h, b_x, b_h = (getattr(lstm, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        gates = F.linear(x, w_x, b_x) + F.linear(hidden[layer], w_h, b_h)
        into, forget, new, out = gates.chunk(4, -1)  # torch's order
        memory = torch.sigmoid(forget) * cell[layer] + torch.sigmoid(into) * torch.tanh(new)
        x = torch.sigmoid(out) * torch.tanh(memory)
        hiddens.append(x)
        cells.append(memory)
    return x, torch.stack(hiddens), torch.stack(cells)
