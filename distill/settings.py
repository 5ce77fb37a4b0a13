"""The settings of a distillation."""

from __future__ import annotations

from dataclasses import dataclass

from nemoport.errors import UsageError
from nemoport.quantize.nbits import FAST_SIZES


@dataclass(frozen=True)
class Settings:
    """bits, block: of the weights; high_bits, high_share: of the groups that cost most, and their share of all weights.
    batch_seconds, row_seconds: audio of a step, and of a row of it, joined of recordings; noisy_share: of the rows that are made
    lower or noisy; rate: how far a weight moves in a step
    of training at most, in steps of its integers over the root of the layer's inputs; token_weight, layer_weight: of the losses
    beside the one of the last frames."""

    steps: int = 20000
    bits: int = 2
    block: int = 128
    high_bits: int = 4
    high_share: float = 0.32  # 219 MB at 0.6B dimensions
    batch_seconds: float = 48.0
    row_seconds: float = 12.0
    noisy_share: float = 0.5
    rate: float = 0.04
    warm_up: int = 100
    token_weight: float = 3.0
    layer_weight: float = 0.5
    damping: float = 0.01  # see quantize/error_feedback.py
    bfloat16: bool = False  # products in half the bytes, where the processor has them
    seed: int = 0

    def __post_init__(self):
        wrong = [
            f"{name} {value}"
            for name, value, right in (
                ("steps", self.steps, self.steps >= 1),
                ("block", self.block, self.block in FAST_SIZES),
                ("high share", self.high_share, 0 <= self.high_share <= 1),
                ("noisy share", self.noisy_share, 0 <= self.noisy_share <= 1),
                ("seconds of a row", self.row_seconds, 1 <= self.row_seconds <= self.batch_seconds <= 36000),
                ("rate", self.rate, 0 < self.rate <= 1),
            )
            if not right
        ]
        if wrong:
            raise UsageError(
                "The settings of the distillation cannot be used.",
                expected=f"a step or more, blocks of {', '.join(map(str, FAST_SIZES))}, a high and a noisy share from 0 to 1, "
                "rows of a second or more and no longer than a batch, a rate of more than 0 and at most 1",
                found=", ".join(wrong),
                todo="correct the options",
            )
