"""Errors for weights that do not fit the config or that no graph would use, raised when a target makes its modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nemoport.errors import CheckpointError, first_line
from nemoport.export.checkpoint import Checkpoint


@contextmanager
def explain_weight_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Turns an error within the block into a CheckpointError.

    The block makes the modules and runs them once: weights of other shapes than the config's raise there, and nothing else does.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint.path} holds weights that do not fit its config.",
            expected=f"tensors for {checkpoint.spec.encoder} and {checkpoint.spec.decoding}"
            + (f", {checkpoint.spec.prompt.slots} prompt slots" if checkpoint.spec.prompt else ""),
            found=first_line(error),
            todo="save it again with NeMo; if NeMo restores it as it is, report this checkpoint",
        ) from error


def refuse_unused(checkpoint: Checkpoint, unused: list[str]) -> None:
    """Raises CheckpointError if `unused`, the names of weights that no module took, is not empty."""
    if unused:
        raise CheckpointError(
            f"{checkpoint.path} holds weights that the exported graph would not use.",
            expected="only the weights of the published structure",
            found=", ".join(unused[:8]) + (f" and {len(unused) - 8} more" if len(unused) > 8 else ""),
            todo="merge adapters into the model, or report this checkpoint",
        )
