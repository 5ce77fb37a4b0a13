"""What the head makes of encoder frames: the teacher's greedy path, and how far a student's token posteriors are from its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nemoport.export.decoder import DecoderJoint
from nemoport.spec import DecodingSpec


@dataclass(frozen=True)
class Path:
    """The places that greedy decoding visits: a frame and the tokens so far. streams, frames: i64 [n], which recording and which
    of its frames; predicted: f32 [n, joint], the prediction of the tokens so far."""

    streams: Tensor
    frames: Tensor
    predicted: Tensor


@torch.no_grad()
def greedy_path(head: DecoderJoint, spec: DecodingSpec, encoded: Tensor, lengths: Tensor) -> Path:
    """Decodes greedily, all recordings at once. encoded: f32 [B, T, joint], frames behind `head.enc`; lengths: i64 [B]."""
    batch, device = encoded.size(0), encoded.device
    states = tuple(torch.zeros(spec.state_shape(batch), device=device) for _ in range(2))
    every = torch.arange(batch, device=device)
    predicted, states = _predict(head, torch.full((batch,), spec.blank_id, device=device), states)
    frame, symbols = torch.zeros_like(every), torch.zeros_like(every)
    visited = []
    while bool((active := frame < lengths).any()):
        at = every[active]
        visited.append((at, frame[at], predicted[at]))
        token = head.head(F.relu(encoded[at, frame[at]] + predicted[at])).argmax(-1)
        ended = (token == spec.blank_id) | (symbols[at] + 1 >= spec.max_symbols_per_frame)
        if len(emitting := at[token != spec.blank_id]):
            new, after = _predict(head, token[token != spec.blank_id], tuple(state[:, emitting] for state in states))
            predicted[emitting] = new
            for state, one in zip(states, after, strict=True):
                state[:, emitting] = one
        frame[at] += ended
        symbols[at] = torch.where(ended, 0, symbols[at] + 1)
    streams, frames, predictions = (torch.cat(parts) for parts in zip(*visited, strict=True))
    return Path(streams, frames, predictions)


def _predict(head: DecoderJoint, tokens: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    made, states = head.lstm(head.embed(tokens).unsqueeze(0), states)
    return head.pred(made[0]), tuple(state.clone() for state in states)


def divergence(head: DecoderJoint, path: Path, teacher: Tensor, student: Tensor) -> Tensor:
    """The mean KL divergence of the student's token posteriors from the teacher's along the teacher's path, in nats.

    teacher, student: f32 [B, T, joint], frames behind `head.enc`.
    """
    target, own = (
        torch.log_softmax(head.head(F.relu(frames[path.streams, path.frames] + path.predicted)).float(), -1)
        for frames in (teacher, student)
    )
    return F.kl_div(own, target, log_target=True, reduction="batchmean")
