"""Restores checkpoints in NeMo, and runs them in the exact setting that their results are compared in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import Checkpoint

SMALL_MODEL_WEIGHTS = 50e6


def restore(checkpoint: Checkpoint) -> Any:
    """Returns a fresh `EncDecRNNTBPEModel` on the CPU: eval mode, float32, dither 0. Raises CheckpointError.

    Restored anew for every use: `export()` changes the model it exports, and `restore_from` leaves it in train mode.
    """
    import torch

    with quiet():
        from nemo.collections.asr.models import ASRModel

        try:
            model: Any = ASRModel.restore_from(str(checkpoint.path), map_location=torch.device("cpu"))
        except Exception as error:  # NeMo raises what its parts raise
            raise CheckpointError(
                f"NeMo cannot restore {checkpoint.path}.",
                expected="a checkpoint saved by NeMo 3.0.0 or one that it can read",
                found=f"{type(error).__name__}: {error}",
                todo="restore and save it again with NeMo 3.0.0",
            ) from error
    model = model.to(torch.float32).eval()
    model.preprocessor.featurizer.dither = 0.0
    model.preprocessor.featurizer.pad_to = 0
    return model


@contextlib.contextmanager
def exact(model: Any) -> Iterator[None]:
    """Runs its block in torch's inference mode, with matrix products in full float32 precision.

    A small model gets one thread: several would wait for each other more than they work (14 times slower was measured on
    two busy cores).
    """
    import torch

    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    if sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL_WEIGHTS:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses NeMo's warnings about absent training data and its progress lines within its block."""
    from nemo.utils import logging as nemo_logging

    before = nemo_logging.getEffectiveLevel()
    nemo_logging.setLevel(logging.ERROR)
    try:
        yield
    finally:
        nemo_logging.setLevel(before)
