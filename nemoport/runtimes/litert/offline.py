"""Session over an offline model's graphs in the LiteRT interpreter: each recording in the shortest window that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nemoport.caches import NoCaches
from nemoport.runtimes.litert.graphs import joint_frames, recording_name
from nemoport.runtimes.litert.session import Graph, LitertSession
from nemoport.session import check_frames
from nemoport.spec import ModelSpec
from nemoport.windows import padded_window


class OfflineLitertSession(LitertSession):
    """`nemoport.session.Session` over the files of an offline model. A window that is not used is not opened: the interpreter
    packs the weights anew for each."""

    def __init__(self, spec: ModelSpec, encoder: Path, decoder: Path, windows_s: Sequence[int], threads: int = 0):
        """windows_s: seconds of the windows; threads: 0 for the runtime's choice. Raises ArtifactError for files that cannot be
        loaded."""
        self.spec, self._joints = spec, joint_frames(spec, windows_s)
        self._sizes = {spec.frontend.mel_frames(seconds): recording_name(seconds) for seconds in windows_s}
        self._encoder, self._decoder = Graph(encoder, threads, [[n] for n in self._sizes.values()]), Graph(decoder, threads)

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> NoCaches:
        self.spec.check_prompts(batch, prompts)
        return NoCaches.initial(None, batch)

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: NoCaches):
        """Encodes as `Session.encode` does. Raises UsageError for a recording that is longer than every window, ArtifactError for
        frames that do not match their counts."""
        outputs = []
        for row, length in zip(mel, lengths, strict=True):
            window = padded_window(row, int(length), list(self._sizes))
            feeds = {"audio_signal": window[None], "length": np.array([length], np.int32)}
            outputs.append(self._encoder.run(self._sizes[window.shape[1]], feeds))
        counts = np.concatenate([one["encoded_lengths"] for one in outputs]).astype(np.int64)
        frames = np.zeros((len(mel), max(counts.max(), 0), self.spec.encoder.d_model), np.float32)
        for row, (one, count) in enumerate(zip(outputs, counts, strict=True)):
            frames[row, :count] = one["outputs"][0, :count]
        check_frames(frames, counts, len(mel), self.spec)
        return frames, counts, state

    def stack(self, states: list[NoCaches]) -> NoCaches:
        return NoCaches.stack(states)
