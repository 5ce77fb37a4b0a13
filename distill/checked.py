"""Distillation of a checkpoint, once it is known that it can be done."""

from __future__ import annotations

from pathlib import Path

import torch

from nemoport.calibration.audio import check_calibration
from nemoport.distill.run import Distillation
from nemoport.distill.settings import Settings
from nemoport.errors import UsageError, first_line
from nemoport.export.checkpoint import Checkpoint
from nemoport.progress import Progress, silent
from nemoport.resources import Needs, check_free
from nemoport.speech.corpus import read_corpus

# Teacher, student, what its weights are rounded to, gradients, two moments of Adam; a state on disk beside the one before it.
NEEDS = Needs(memory=6.5, held=6.0, disk=6.2)


def distill(
    checkpoint: Checkpoint,
    audio: Path,
    folder: Path,
    settings: Settings,
    device: str = "cpu",
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> Path:
    """Distills a checkpoint on a folder or manifest of audio, and returns the student's file in `folder`. resume: go on where
    an earlier run of the same settings, but for the number of steps, ended.

    Raises UsageError (no such device, a model that does not stream by caches), ResourceError, and as `Distillation`.
    """
    if checkpoint.spec.streaming is None:
        raise UsageError(
            f"{checkpoint.path} is not a model that can be distilled.",
            expected="a cache-aware model",
            found=checkpoint.spec.kind,
            todo="take its variant int4-mixed",
        )
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"There is no device {device!r}.",
            expected="cpu, or one that torch has, such as cuda",
            found=first_line(error),
            todo="choose another",
        ) from error
    corpus = read_corpus(audio, checkpoint.spec.frontend.sample_rate_hz)
    check_calibration(corpus)
    if device == "cpu":
        check_free("distill", checkpoint.weights_bytes, NEEDS, folder, progress)
    return Distillation(checkpoint, corpus, folder, settings, device, progress).run(resume)
