"""Restores checkpoints in NeMo, and runs them in the exact setting that their results are compared in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from nemoport.errors import CheckpointError, first_line
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.hyperparameters import number
from nemoport.export.kinds import kind_named
from nemoport.export.shared import check_frontend_buffers
from nemoport.files import scratch_folder
from nemoport.text import clipped
from nemoport.validate.nemo_config import nemo_config

SMALL_MODEL_WEIGHTS = 50e6


def restore(checkpoint: Checkpoint) -> Any:
    """Returns a fresh model of NeMo's class on the CPU: eval mode, float32, dither 0. Raises CheckpointError.

    Equal to what `ASRModel.restore_from` returns in all that inference uses, but built by nemo_config.py's config, because
    `restore_from` runs what a stranger's config names. Its filterbank and window are the config's, as those of NeMo's streaming
    buffer are: a checkpoint in half precision holds rounded ones. Built anew for every
    use: `export()` changes the model it exports.
    """
    _check_size(checkpoint, weights := checkpoint.load_weights())
    check_frontend_buffers(checkpoint, weights)
    nemo_class = kind_named(checkpoint.spec.kind).nemo_class  # of KINDS: a checkpoint chooses among these only
    with quiet(), scratch_folder() as folder:
        from nemo.collections.asr import models
        from omegaconf import OmegaConf

        config = OmegaConf.create(nemo_config(checkpoint, folder))
        try:
            model: Any = vars(models)[nemo_class](cfg=config)
            own = {name: value for name, value in model.state_dict().items() if name.startswith("preprocessor.featurizer.")}
            model.load_state_dict(weights | own)
        except Exception as error:  # NeMo raises what its parts raise
            raise CheckpointError(
                f"NeMo cannot restore {checkpoint.path}.",
                expected="a checkpoint saved by NeMo 3.0.0 or one that it can read",
                found=clipped(f"{type(error).__name__}: {first_line(error)}"),
                todo="restore and save it again with NeMo 3.0.0",
            ) from error
    model = model.eval()
    model.preprocessor.featurizer.dither = 0.0
    model.preprocessor.featurizer.pad_to = 0
    return model


def _check_size(checkpoint: Checkpoint, weights: dict) -> None:
    """Raises CheckpointError where the config's encoder is far larger than the weights: NeMo allocates by the config."""
    spec = checkpoint.spec
    expansion = number(checkpoint.config, "encoder.ff_expansion_factor")
    # Of a Conformer layer: two feed-forward blocks, four projections, two pointwise convolutions.
    described = spec.encoder.n_layers * spec.encoder.d_model**2 * (4 * expansion + 4 + 3)
    held = sum(weight.numel() for weight in weights.values())
    if described > 2 * held:
        raise CheckpointError(
            f"{checkpoint.path} holds the weights of another model than its config describes.",
            expected=f"at least {described} weights, by n_layers and d_model",
            found=f"{held}",
            todo="save it again with NeMo",
        )


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
