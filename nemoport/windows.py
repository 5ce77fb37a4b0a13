"""Windows of fixed length: an offline model in graphs of fixed shapes encodes a recording zero-padded to the shortest that holds
it. What is behind the recording has no effect on its frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nemoport.errors import UsageError


def padded_window(mel: np.ndarray, length: int, sizes: Sequence[int]) -> np.ndarray:
    """Returns the first `length` mel frames of f32 [n_mels, T], with zeros behind them, in the shortest window of `sizes`, in mel
    frames: f32 [n_mels, size]. Raises UsageError for a recording that is longer than every window."""
    size = min((size for size in sizes if size >= length), default=None)
    if size is None:
        raise UsageError(
            "The recording is longer than every window of these graphs.",
            expected=f"at most {max(sizes, default=0)} mel frames",
            found=f"{length} mel frames",
            todo="transcribe it in parts that overlap, as `nemoport transcribe` does, or export longer windows (--windows)",
        )
    return np.pad(mel[:, :length], ((0, 0), (0, size - length)))
