"""Numeric: encoder frames against NeMo's own, at the positions that the oracle kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.oracle import Record
from nemoport.validate.runs import UtteranceRun


def run(context: Context) -> list[GateResult]:
    results = []
    for lookahead, flush, heard, expected in context.compared():
        case, n = f"{context_name(lookahead)}, {flush}", len(heard)
        worst, ratio, evidence = differences(heard, expected)
        results += [
            context.judge("numeric", case, worst, limit="max_abs", unit="max abs", n=n, evidence=evidence),
            context.judge("numeric", case, ratio, limit="max_rms_ratio", unit="rms error / rms", n=n),
        ]
    return results


def differences(heard: Sequence[UtteranceRun], expected: Sequence[Record]) -> tuple[float, float, str]:
    """The largest absolute difference, the root of (squared error / squared frames), and where the largest stands.

    Infinite where frame counts differ; NaN where nothing was compared or a frame holds NaN.
    """
    worst, where, squares, total = 0.0, "", 0.0, 0.0
    for ours, theirs in zip(heard, expected, strict=True):
        if ours.enc_frames != theirs.enc_frames:
            return np.inf, np.inf, f"{ours.id}: {ours.enc_frames} encoder frames, NeMo has {theirs.enc_frames}"
        if not ours.enc_frames:
            continue
        error = np.abs(ours.sampled_frames.astype(np.float64) - theirs.sampled_frames)
        if not error.max() <= worst:  # also when it is NaN
            worst, where = float(error.max()), ours.id
        squares += float((error**2).sum())
        total += float((theirs.sampled_frames.astype(np.float64) ** 2).sum())
    if not total:
        return np.nan, np.nan, "no encoder frame to compare"
    return worst, float(np.sqrt(squares / total)), f"largest in {where}" if where else ""
