"""Session for one graph that holds an encoder and a CTC decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.runtimes.onnxruntime.session import OnnxSession, open_graph, run
from nemoport.session import EncoderState
from nemoport.spec import ModelSpec


class MergedSession(OnnxSession):
    """`nemoport.session.Session` whose frames are the scores: `encode` computes them, and `step` returns what it is given."""

    def __init__(self, spec: ModelSpec, model: Path, provider: str = "cpu", threads: int = 0):
        """threads: 0 for onnxruntime's choice. Raises as `open_graph`."""
        self.spec = spec
        self._encoder = open_graph(model, provider, threads)

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState):
        outputs = ("logprobs", "encoded_lengths", *self._caches.outputs(self.spec.streaming))
        scores, counts, *caches = run(self._encoder, outputs, {"audio_signal": mel, "length": lengths, **state.feeds()})
        width = self.spec.decoding.n_scores
        if scores.ndim != 3 or scores.shape[2] != width or counts.shape != scores.shape[:1] or (counts > scores.shape[1]).any():
            raise ArtifactError(
                "The graph returns scores that do not match their count.",
                expected=f"scores [{len(mel)}, T, {width}] and for each stream a count of at most T",
                found=f"scores {list(scores.shape)}, counts {counts.tolist()[:8]}",
                todo="build or download the variant again",
            )
        return scores, counts, state.advance(caches)

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        return frames, state
