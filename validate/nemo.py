"""NeMo itself: a freshly restored model, and the setting in which its results count."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import Checkpoint

SMALL_MODEL_WEIGHTS = 50e6


def restore(checkpoint: Checkpoint):
    """A fresh `EncDecRNNTBPEModel` on the CPU: eval mode, float32, dither 0. Raises CheckpointError.

    Restored anew for every use: `export()` changes the model it exports, and `restore_from` leaves it in train mode.
    """
    import torch

    with quiet():
        from nemo.collections.asr.models import ASRModel

        try:
            model = ASRModel.restore_from(str(checkpoint.path), map_location="cpu")
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
def exact(model) -> Iterator[None]:
    """Inference only, float32 products in full precision; one thread for a small model, whose threads would wait for
    each other more than they work (14 times slower was measured on two busy cores)."""
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
    """Without NeMo's warnings on absent training data and its progress lines."""
    from nemo.utils import logging as nemo_logging

    before = nemo_logging.getEffectiveLevel()
    nemo_logging.setLevel(logging.ERROR)
    try:
        yield
    finally:
        nemo_logging.setLevel(before)
