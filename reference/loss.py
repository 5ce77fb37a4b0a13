"""Transducer losses, RNNT and TDT, vectorised over batch and labels (Graves 2012, arXiv:1211.3711, equations 16 to 20).

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
    """Forward variables alpha f32 [B, T, U+1], the log-probability of reaching (t, u).

    blank [B, T, U+1] and emit [B, T, U] are log-probabilities.
    """
    below = torch.nn.functional.pad(emit.cumsum(-1), (1, 0))
    alpha = [below[:, 0]]
    for t in range(1, blank.shape[1]):
        alpha.append(below[:, t] + torch.logcumsumexp(alpha[-1] + blank[:, t - 1] - below[:, t], -1))
    return torch.stack(alpha, 1)


def backward_variables(blank: torch.Tensor, emit: torch.Tensor, n_frames: torch.Tensor, n_labels: torch.Tensor) -> torch.Tensor:
    """Backward variables beta f32 [B, T+1, U+1], the log-probability of finishing from (t, u); row n_frames is the end."""
    above = torch.nn.functional.pad(emit.flip(-1).cumsum(-1).flip(-1), (0, 1))
    labels = torch.arange(blank.shape[2], device=blank.device)
    end = torch.where(labels[None] == n_labels[:, None], 0.0, IMPOSSIBLE)
    nothing = torch.full_like(end, IMPOSSIBLE)
    beta = [torch.where(n_frames.eq(blank.shape[1])[:, None], end, nothing)]
    for t in range(blank.shape[1] - 1, -1, -1):
        gain = beta[-1] + blank[:, t] - above[:, t]
        now = above[:, t] + torch.logcumsumexp(gain.flip(-1), -1).flip(-1)
        now = torch.where((t < n_frames)[:, None], now, nothing)
        beta.append(torch.where(n_frames.eq(t)[:, None], end, now))
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
    def backward(ctx, *grad_outputs):
        (grad,) = grad_outputs
        alpha, total, blank, emit, n_frames, n_labels = ctx.saved_tensors
        beta = backward_variables(blank, emit, n_frames, n_labels)
        total, grad = total[:, None, None], grad[:, None, None]
        grad_blank = -grad * torch.exp(alpha + blank + beta[:, 1:] - total)
        grad_emit = -grad * torch.exp(alpha[:, :, :-1] + emit + beta[:, :-1, 1:] - total)
        # Row n_frames of beta is the end itself: nothing is emitted there, but the formula gives it a probability.
        inside = torch.arange(emit.shape[1], device=emit.device)[None] < n_frames[:, None]
        grad_emit = torch.where(inside[..., None], grad_emit, 0.0)
        return grad_blank, grad_emit, None, None


def transducer_loss(
    logits: torch.Tensor, targets: torch.Tensor, n_frames: torch.Tensor, n_labels: torch.Tensor, blank_id: int
) -> torch.Tensor:
    """Transducer loss (RNNT) of each utterance, f32 [B], in nats.

    logits f32 [B, T, U+1, V+1] (raw or normalised), targets i64 [B, U], n_frames and n_labels i64 [B].
    """
    log_probs = torch.log_softmax(logits.float(), -1)
    index = targets[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    emit = log_probs[:, :, :-1].gather(-1, index).squeeze(-1)
    valid = torch.arange(targets.shape[1], device=logits.device)[None] < n_labels[:, None]
    # Padding labels may not be reached; a zero keeps the cumulative sums small.
    emit = torch.where(valid[:, None], emit, 0.0)
    return _Transducer.apply(log_probs[..., blank_id], emit, n_frames.long(), n_labels.long())


def _arcs_from(log_probs: torch.Tensor, step: int) -> torch.Tensor:
    """Shifts log_probs [B, T, U] so that row t is row t - step; rows before the first are impossible."""
    return torch.nn.functional.pad(log_probs, (0, 0, step, 0), value=IMPOSSIBLE)[:, : log_probs.shape[1]]


def _rows_after(rows: torch.Tensor, step: int, n_rows: int) -> torch.Tensor:
    """Shifts rows [B, N, U] so that row t is row t + step, n_rows of them; those beyond the last are impossible."""
    return torch.nn.functional.pad(rows, (0, 0, 0, step), value=IMPOSSIBLE)[:, step : step + n_rows]


def tdt_forward(blank: torch.Tensor, emit: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Forward variables alpha f32 [B, T, U+1] of the TDT lattice, the log-probability of reaching (t, u).

    blank [B, T, U+1], emit [B, T, U] and steps [B, T, U+1, D] are log-probabilities. Step d moves d frames on; step 0 is
    for labels alone, and within a row the cumulative sums of ``forward_variables`` do it.
    """
    n_frames, n_steps = blank.shape[1], steps.shape[-1]
    below = torch.nn.functional.pad((emit + steps[:, :, :-1, 0]).cumsum(-1), (1, 0))
    blanks = torch.stack([_arcs_from(blank + steps[..., d], d) for d in range(1, n_steps)])  # [D-1, B, T, U+1]
    labels = torch.stack([_arcs_from(emit + steps[:, :, :-1, d], d) for d in range(1, n_steps)])
    alpha = [below[:, 0]]
    for t in range(1, n_frames):
        reach = min(t, n_steps - 1)
        before = torch.stack(alpha[: -reach - 1 : -1])  # [reach, B, U+1], nearest first
        by_blank = (before + blanks[:reach, :, t]).logsumexp(0)
        by_label = (before[..., :-1] + labels[:reach, :, t]).logsumexp(0)
        arrived = torch.logaddexp(by_blank, torch.nn.functional.pad(by_label, (1, 0), value=IMPOSSIBLE))
        alpha.append(below[:, t] + torch.logcumsumexp(arrived - below[:, t], -1))
    return torch.stack(alpha, 1)


def tdt_backward(
    blank: torch.Tensor, emit: torch.Tensor, steps: torch.Tensor, n_frames: torch.Tensor, n_labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward variables beta f32 [B, T+1, U+1] of the TDT lattice, once for arrival by a blank and once by a label.

    beta is the log-probability of finishing from (t, u).
    Row n_frames is the end: a blank may step right onto it, a label may not.
    """
    n_rows, n_steps = blank.shape[1], steps.shape[-1]
    in_place = emit + steps[:, :, :-1, 0]
    above = torch.nn.functional.pad(in_place.flip(-1).cumsum(-1).flip(-1), (0, 1))
    by_blank = [blank + steps[..., d] for d in range(1, n_steps)]
    by_label = [emit + steps[:, :, :-1, d] for d in range(1, n_steps)]
    columns = torch.arange(blank.shape[2], device=blank.device)
    end = torch.where(columns[None] == n_labels[:, None], 0.0, IMPOSSIBLE)
    nothing = torch.full_like(end, IMPOSSIBLE)
    onto = [torch.where(n_frames.eq(n_rows)[:, None], end, nothing)]  # last row first
    within = [nothing]
    for t in range(n_rows - 1, -1, -1):
        reach = min(n_rows - t, n_steps - 1)
        leaving = torch.stack([by_blank[d][:, t] + onto[-1 - d] for d in range(reach)]).logsumexp(0)
        labelled = torch.stack([by_label[d][:, t] + within[-1 - d][:, 1:] for d in range(reach)]).logsumexp(0)
        leaving = torch.logaddexp(leaving, torch.nn.functional.pad(labelled, (0, 1), value=IMPOSSIBLE))
        now = above[:, t] + torch.logcumsumexp((leaving - above[:, t]).flip(-1), -1).flip(-1)
        now = torch.where((t < n_frames)[:, None], now, nothing)
        within.append(now)
        onto.append(torch.where(n_frames.eq(t)[:, None], end, now))
    return torch.stack(onto[::-1], 1), torch.stack(within[::-1], 1)


class _TokenAndDuration(torch.autograd.Function):
    """Negative log-likelihood [B]; its gradient is minus the posterior of each transition."""

    @staticmethod
    def forward(ctx, blank, emit, steps, n_frames, n_labels):
        batch = torch.arange(len(blank), device=blank.device)
        alpha = tdt_forward(blank, emit, steps)
        arrivals = []
        for d in range(1, steps.shape[-1]):
            t = (n_frames - d).clamp(min=0)
            arrival = alpha[batch, t, n_labels] + blank[batch, t, n_labels] + steps[batch, t, n_labels, d]
            arrivals.append(torch.where(n_frames >= d, arrival, IMPOSSIBLE))
        total = torch.stack(arrivals).logsumexp(0)
        ctx.save_for_backward(alpha, total, blank, emit, steps, n_frames, n_labels)
        return -total

    @staticmethod
    def backward(ctx, *grad_outputs):
        (grad,) = grad_outputs
        alpha, total, blank, emit, steps, n_frames, n_labels = ctx.saved_tensors
        n_rows = blank.shape[1]
        onto, within = tdt_backward(blank, emit, steps, n_frames, n_labels)
        total, grad = total[:, None, None], grad[:, None, None]
        inside = (torch.arange(n_rows, device=blank.device)[None] < n_frames[:, None])[..., None]
        # What does not depend on the step is added first; the loop over steps then adds and exponentiates alone.
        from_blank = torch.where(inside, alpha + blank - total, IMPOSSIBLE)
        from_label = torch.where(inside, alpha[:, :, :-1] + emit - total, IMPOSSIBLE)
        grad_blank, grad_emit, grad_steps = torch.zeros_like(blank), torch.zeros_like(emit), torch.zeros_like(steps)
        for d in range(steps.shape[-1]):
            if d:
                flow = -grad * torch.exp(from_blank + steps[..., d] + _rows_after(onto, d, n_rows))
                grad_blank += flow
                grad_steps[..., d] += flow
            flow = -grad * torch.exp(from_label + steps[:, :, :-1, d] + _rows_after(within, d, n_rows)[:, :, 1:])
            grad_emit += flow
            grad_steps[:, :, :-1, d] += flow
        return grad_blank, grad_emit, grad_steps, None, None


def tdt_loss(
    logits: torch.Tensor, targets: torch.Tensor, n_frames: torch.Tensor, n_labels: torch.Tensor, blank_id: int, sigma: float
) -> torch.Tensor:
    """Token-and-duration transducer loss of each utterance, f32 [B], in nats (arXiv:2304.06795).

    logits f32 [B, T, U+1, blank_id+1 + D], the last D those of the steps 0 to D-1; targets i64 [B, U]; n_frames and
    n_labels i64 [B]. ``sigma`` is taken from every token log-probability, which makes longer steps cheaper.
    """
    tokens = torch.log_softmax(logits[..., : blank_id + 1].float(), -1)
    steps = torch.log_softmax(logits[..., blank_id + 1 :].float(), -1)
    index = targets[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    emit = tokens[:, :, :-1].gather(-1, index).squeeze(-1) - sigma
    valid = torch.arange(targets.shape[1], device=logits.device)[None] < n_labels[:, None]
    # Padding labels may not be reached; a zero keeps the cumulative sums small.
    emit = torch.where(valid[:, None], emit, 0.0)
    return _TokenAndDuration.apply(tokens[..., blank_id] - sigma, emit, steps, n_frames.long(), n_labels.long())
