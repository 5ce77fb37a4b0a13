"""A session that stops at the first NaN or infinity."""

from __future__ import annotations

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.session import EncoderState, Session


class FiniteSession:
    """Runs another `Session`, and raises ArtifactError where frames, caches, logits or states hold NaN or infinity."""

    def __init__(self, session: Session):
        self._session, self.spec = session, session.spec
        self.initial_state, self.stack, self.unstack = session.initial_state, session.stack, session.unstack

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState) -> tuple[np.ndarray, np.ndarray, EncoderState]:
        frames, frame_lengths, state = self._session.encode(mel, lengths, state)
        _check("the encoder's frames", frames)
        for name, values in state.feeds().items():
            _check(f"the encoder's next {name}", values)
        return frames, frame_lengths, state

    def step(
        self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        logits, state = self._session.step(frames, tokens, state)
        _check("the logits", logits)
        for part in state:
            _check("the decoder's state", part)
        return logits, state


def _check(what: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ArtifactError(
            f"The artifact computes NaN or infinity in {what}.",
            expected="finite numbers",
            found=f"{count} of {values.size} are not",
            todo="look for overflow (fp16) or damaged weights or scales",
        )
