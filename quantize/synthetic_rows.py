"""Synthetic activations: rows drawn from the distributions that the weights imply, for smoothing without calibration audio.

The output of a LayerNormalization has, by its definition, mean beta and a standard deviation of about gamma in each channel,
so its gain shows which channels are outliers. Outliers that come from the residual stream itself do not show in it.
"""

from __future__ import annotations

import numpy as np

from nemoport.quantize.graph import Weights
from nemoport.quantize.smoothing import Site, sites, smooth

ROWS = 256


def synthetic_rows(model, found: list[Site], seed: int = 0) -> dict[str, np.ndarray]:
    """Draws rows f32 [ROWS, channels] for the tensor of each site that folds into a node, by the tensor's name.

    Sites behind an activation function are left out. model: onnx.ModelProto with its weights.
    """
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
    """Smooths, in place, the tensors whose outliers show in the weights and whose division can be folded into a node.

    model: onnx.ModelProto with its weights.
    """
    found = sites(model)
    rows = synthetic_rows(model, found)
    known = [site for site in found if site.tensor in rows]
    largest = {tensor: np.abs(sample).max(0) for tensor, sample in rows.items()}
    for _ in smooth(model, known, largest, rows.__getitem__, alphas, mul_gain_db=0.0):
        pass
