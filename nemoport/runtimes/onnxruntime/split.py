"""Session for graphs whose decoder is split into predictor and joiner, in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemoport.runtimes.onnxruntime.session import OnnxSession, open_graph, run
from nemoport.spec import ModelSpec


class SplitSession(OnnxSession):
    """`nemoport.session.Session` over encoder, predictor (`decoder`) and joiner."""

    def __init__(self, spec: ModelSpec, encoder: Path, decoder: Path, joiner: Path, provider: str = "cpu", threads: int = 0):
        """threads: 0 for onnxruntime's choice. Raises as `open_graph`."""
        super().__init__(spec, encoder, decoder, provider, threads)
        self._joiner = open_graph(joiner, provider, threads)

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        feeds = {
            "targets": tokens[:, None],
            "target_length": np.ones(len(tokens), np.int32),
            "input_states_1": state[0],
            "input_states_2": state[1],
        }
        prediction, hidden, cell = run(self._decoder, ("outputs", "output_states_1", "output_states_2"), feeds)
        encoded = np.ascontiguousarray(frames.transpose(0, 2, 1))
        (scores,) = run(self._joiner, ("outputs",), {"encoder_outputs": encoded, "decoder_outputs": prediction})
        return scores[:, :, 0], (hidden, cell)
