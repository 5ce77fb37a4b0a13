"""Activations without audio: rows drawn from what the weights tell of them, for smoothing that needs no calibration.

What a LayerNormalization gives has, by its definition, mean beta and deviation about gamma in each channel, so its gain
tells which channels stand out. What it cannot tell is what the residual stream itself makes of a channel.
"""

from __future__ import annotations

import numpy as np

from nemoport.quantize.graph import Weights
from nemoport.quantize.smoothing import Site, sites, smooth

ROWS = 256


def synthetic_rows(model, found: list[Site], seed: int = 0) -> dict[str, np.ndarray]:
    """f32 [ROWS, channels] for each site that folds into something; sites behind an activation function are left out."""
    weights = Weights(model)
    norms = {node.name: node for node in model.graph.node if node.op_type == "LayerNormalization"}
    random = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {}
    by_matmul: dict[str, str] = {}  # MatMul -> the tensor that it reads
    for site in found:
        by_matmul |= dict.fromkeys(site.matmuls, site.tensor)
        if site.folds_into in norms:
            parameters = [weights[name] for name in norms[site.folds_into].input[1:]]
            rows[site.tensor] = random.standard_normal((ROWS, len(parameters[0]))).astype(np.float32) * parameters[0]
            rows[site.tensor] += sum(parameters[1:])
        elif site.folds_into is not None and by_matmul.get(site.folds_into) in rows:  # the value, which attention averages
            rows[site.tensor] = rows[by_matmul[site.folds_into]] @ weights.of(site.folds_into)
    return rows


def smooth_without_audio(model, alphas: tuple[float, ...]) -> None:
    """Smooths, in place, the tensors whose outliers the weights tell of and whose division costs nothing."""
    found = sites(model)
    rows = synthetic_rows(model, found)
    known = [site for site in found if site.tensor in rows]
    largest = {tensor: np.abs(sample).max(0) for tensor, sample in rows.items()}
    for _ in smooth(model, known, largest, rows.__getitem__, alphas, mul_gain_db=0.0):
        pass
