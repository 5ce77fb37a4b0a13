"""The transducer loss, vectorised over batch and labels (Graves 2012, arXiv:1211.3711, equations 16 to 20).

NeMo's CPU loss loops over time and labels in numba, 2 to 7 s for a batch of sixteen; this one loops over time alone.
With S[t, u] the sum of emission log-probabilities at time t below label u, the forward recursion
    alpha[t, u] = logaddexp(alpha[t-1, u] + blank[t-1, u], alpha[t, u-1] + emit[t, u-1])
becomes
    alpha[t, u] = S[t, u] + logcumsumexp_u(alpha[t-1, u] + blank[t-1, u] - S[t, u]).
"""
from __future__ import annotations

import torch

IMPOSSIBLE = -1e30  # minus infinity without the NaN of inf - inf


def forward_variables(blank: torch.Tensor, emit: torch.Tensor) -> torch.Tensor:
    """alpha: f32 [B, T, U+1] from blank [B, T, U+1] and emit [B, T, U] log-probabilities."""
    below = torch.nn.functional.pad(emit.cumsum(-1), (1, 0))
    alpha = [below[:, 0]]
    for t in range(1, blank.shape[1]):
        alpha.append(below[:, t] + torch.logcumsumexp(alpha[-1] + blank[:, t - 1] - below[:, t], -1))
    return torch.stack(alpha, 1)


def backward_variables(blank: torch.Tensor, emit: torch.Tensor, n_frames: torch.Tensor, n_labels: torch.Tensor) -> torch.Tensor:
    """beta: f32 [B, T+1, U+1], the log-probability of finishing from (t, u); row n_frames is the end."""
    above = torch.nn.functional.pad(emit.flip(-1).cumsum(-1).flip(-1), (0, 1))
    labels = torch.arange(blank.shape[2], device=blank.device)
    end = torch.where(labels[None] == n_labels[:, None], 0.0, IMPOSSIBLE)
    nothing = torch.full_like(end, IMPOSSIBLE)
    beta = [torch.where((n_frames == blank.shape[1])[:, None], end, nothing)]
    for t in range(blank.shape[1] - 1, -1, -1):
        gain = beta[-1] + blank[:, t] - above[:, t]
        now = above[:, t] + torch.logcumsumexp(gain.flip(-1), -1).flip(-1)
        now = torch.where((t < n_frames)[:, None], now, nothing)
        beta.append(torch.where((t == n_frames)[:, None], end, now))
    return torch.stack(beta[::-1], 1)


class _Transducer(torch.autograd.Function):
    """Negative log-likelihood [B]; its gradient is minus the posterior of each transition."""

    @staticmethod
    def forward(ctx, blank, emit, n_frames, n_labels):
        batch = torch.arange(len(blank), device=blank.device)
        alpha = forward_variables(blank, emit)
        total = alpha[batch, n_frames - 1, n_labels] + blank[batch, n_frames - 1, n_labels]
        ctx.save_for_backward(alpha, total, blank, emit, n_frames, n_labels)
        return -total

    @staticmethod
    def backward(ctx, grad):
        alpha, total, blank, emit, n_frames, n_labels = ctx.saved_tensors
        beta = backward_variables(blank, emit, n_frames, n_labels)
        total, grad = total[:, None, None], grad[:, None, None]
        grad_blank = -grad * torch.exp(alpha + blank + beta[:, 1:] - total)
        grad_emit = -grad * torch.exp(alpha[:, :, :-1] + emit + beta[:, :-1, 1:] - total)
        # Row n_frames of beta is the end itself: nothing is emitted there, but the formula would say so.
        inside = torch.arange(emit.shape[1], device=emit.device)[None] < n_frames[:, None]
        grad_emit = torch.where(inside[..., None], grad_emit, 0.0)
        return grad_blank, grad_emit, None, None


def transducer_loss(logits: torch.Tensor, targets: torch.Tensor, n_frames: torch.Tensor, n_labels: torch.Tensor,
                    blank_id: int) -> torch.Tensor:
    """Loss of each utterance, f32 [B], in nats.

    logits f32 [B, T, U+1, V+1] (raw or normalised), targets i64 [B, U], n_frames and n_labels i64 [B].
    """
    log_probs = torch.log_softmax(logits.float(), -1)
    index = targets[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    emit = log_probs[:, :, :-1].gather(-1, index).squeeze(-1)
    valid = torch.arange(targets.shape[1], device=logits.device)[None] < n_labels[:, None]
    # Padding labels may not be reached; a zero keeps the cumulative sums small.
    emit = torch.where(valid[:, None], emit, 0.0)
    return _Transducer.apply(log_probs[..., blank_id], emit, n_frames.long(), n_labels.long())
