"""An offline model as graphs of fixed shapes, for runtimes that compile them ahead: one recording, zero-padded to a window.

encoder_<seconds>s   mel, frames first, and how many of them are valid -> frames, and the joint's projection of them, or the
                     log-probabilities of a CTC model
predict, joint       as of a streaming transducer, see graphs.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nemoport.apple.graphs import decoder_interfaces
from nemoport.apple.session import AppleSession
from nemoport.caches import NoCaches
from nemoport.interface import I32, Interface, Tensor
from nemoport.session import EncoderState
from nemoport.spec import CTC, ModelSpec
from nemoport.windows import padded_window

PREFIX = "encoder_"


def encoder_name(seconds: int) -> str:
    """Returns the name of the graph that encodes a recording of up to so many seconds."""
    return f"{PREFIX}{seconds}s"


def offline_interfaces(spec: ModelSpec, windows_s: Sequence[int], dtype: str) -> dict[str, Interface]:
    """Returns each graph's interface by its name. windows_s: seconds of the windows; dtype: of the encoder's floats."""
    offline, decoding = spec.require_offline(), spec.decoding
    scored = ("logprobs", decoding.n_scores) if spec.head == CTC else ("enc_proj", decoding.joint_hidden)
    graphs = {}
    for seconds in windows_s:
        size = spec.frontend.mel_frames(seconds)
        frames = offline.enc_frames(size)
        graphs[encoder_name(seconds)] = Interface(
            {"mel": Tensor(dtype, (1, size, spec.frontend.n_mels)), "length": Tensor(I32, (1,))},
            {"encoded": Tensor(dtype, (1, frames, offline.d_model)), scored[0]: Tensor(dtype, (1, frames, scored[1]))},
        )
    return graphs | ({} if spec.head == CTC else decoder_interfaces(decoding))


@dataclass
class OfflineAppleSession(AppleSession):
    """`nemoport.session.Session` over the graphs of an offline model: a recording goes to the shortest window that holds it."""

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> EncoderState:
        self.spec.check_prompts(batch, prompts)
        return NoCaches.initial(None, batch)

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState):
        """Encodes as `Session.encode` does. Raises UsageError for a recording that is longer than every window."""
        offline = self.spec.require_offline()
        sizes = {graph.inputs["mel"].of()[1]: name for name, graph in self.graphs.items() if name.startswith(PREFIX)}
        counts = np.array([offline.enc_frames(int(length)) for length in lengths], np.int64)
        frames = np.zeros((len(mel), counts.max(), offline.d_model), np.float32)
        self._projected.clear()
        for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            window = padded_window(mel[row], int(length), list(sizes))
            outputs = self._run(sizes[window.shape[1]], {"mel": window.T[None], "length": np.array([length])})
            frames[row, :count] = outputs["encoded"][0, :count]
            scored = outputs["logprobs" if self.spec.head == CTC else "enc_proj"][0]
            self._projected |= {frame.tobytes(): one for frame, one in zip(frames[row, :count], scored, strict=False)}
        return frames, counts, state

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        if self.spec.head != CTC:
            return super().step(frames, tokens, state)
        scores = np.zeros((*frames.shape[:2], self.spec.decoding.n_scores), np.float32)
        for row, at in np.ndindex(frames.shape[:2]):
            if (frame := np.ascontiguousarray(frames[row, at], np.float32)).any():  # zeros stand behind a shorter recording
                scores[row, at] = self._projection(frame.tobytes())
        return scores, state

    def stack(self, states: list[EncoderState]) -> EncoderState:
        return NoCaches.stack(states)

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        return state.rows()


def offline_rules(spec: ModelSpec) -> Mapping[str, str]:
    """Returns sentences for applications, by their names."""
    rules = {
        "mel": "log-mel of a whole recording as config.json's spec.frontend says, normalised over it, frames first, with zeros "
        "behind it up to the shortest window that holds it; a longer recording goes in parts that overlap",
        "length": "the valid frames of `mel`. ceil(length / 8) of the frames are then to be decoded",
    }
    if spec.head == CTC:
        rule = "greedy: the best of tokens and blank on each frame, unless it is blank or the best of the frame before"
        return rules | {"decode": rule}
    step = "at blank go to the next frame, else emit the token, keep the states and predict with it"
    if durations := list(spec.decoding.durations):
        step += f". Behind the scores of tokens and blank stand those of the durations {durations}: go on by the best of them"
        step += ", at blank by at least 1"
    return rules | {"decode": f"greedy: predict with blank and zero states first; joint with each enc_proj frame in turn; {step}"}
