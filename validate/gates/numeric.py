"""Gate `numeric`: encoder frames compared with NeMo's own, at the positions that the oracle kept."""

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
    for lookahead, flush, runs, references in context.compared():
        case, n = f"{context_name(lookahead)}, {flush}", len(runs)
        worst, ratio, evidence = differences(runs, references)
        results += [
            context.judge("numeric", case, worst, limit="max_abs", unit="max abs", n=n, evidence=evidence),
            context.judge("numeric", case, ratio, limit="max_rms_ratio", unit="rms error / rms", n=n),
        ]
    return results


def differences(runs: Sequence[UtteranceRun], references: Sequence[Record]) -> tuple[float, float, str]:
    """Compares sampled encoder frames: (the largest absolute difference, the root of squared error over squared reference,
    the utterance with the largest difference).

    The figures are infinite where frame counts differ, and NaN where nothing was compared or a frame holds NaN.
    """
    worst, where, squares, total = 0.0, "", 0.0, 0.0
    for run, reference in zip(runs, references, strict=True):
        if run.enc_frames != reference.enc_frames:
            return np.inf, np.inf, f"{run.id}: {run.enc_frames} encoder frames, NeMo has {reference.enc_frames}"
        if not run.enc_frames:
            continue
        error = np.abs(run.sampled_frames.astype(np.float64) - reference.sampled_frames)
        if not (np.isnan(worst) or error.max() <= worst):  # also when it is NaN, which then stays
            worst, where = float(error.max()), run.id
        squares += float((error**2).sum())
        total += float((reference.sampled_frames.astype(np.float64) ** 2).sum())
    if not total:
        return np.nan, np.nan, "no encoder frame to compare"
    return worst, float(np.sqrt(squares / total)), f"largest in {where}" if where else ""
