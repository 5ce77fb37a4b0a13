"""Session over graphs of fixed shapes (nemoport/apple/graphs.py), in any runtime: a batch is run stream by stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nemoport.apple.graphs import (
    CONFORMER,
    CONFORMER_CACHES,
    JOINT,
    NEXT,
    PRE,
    PRE_CACHES,
    PRE_FIRST,
    PREDICT,
    negative_mask,
)
from nemoport.errors import UsageError
from nemoport.interface import Interface
from nemoport.spec import ModelSpec

Run = Callable[[str, dict[str, np.ndarray]], Mapping[str, np.ndarray]]  # graph name, inputs -> outputs
Cached = dict[str, dict[str, np.ndarray]]  # graph name -> its caches


@dataclass(frozen=True)
class AppleState:
    """Encoder state of a batch of streams.

    caches: of each stream; length: i64 [B], encoder frames so far, at most the left context; prompt_index: i64 [B], the slot of
    each stream's language, zeros for a model without a prompt.
    """

    caches: tuple[Cached, ...]
    length: np.ndarray
    prompt_index: np.ndarray

    def feeds(self) -> dict[str, np.ndarray]:
        """Returns the caches of all streams by name, for checks of their values."""
        streams = enumerate(self.caches)
        return {f"{g}.{n} of stream {i}": a for i, kept in streams for g, caches in kept.items() for n, a in caches.items()}


@dataclass
class AppleSession:
    """`nemoport.session.Session` over graphs of one lookahead, which is not used of an offline model. graphs: graph name -> its
    interface; run: runs a graph.

    _projected: the joint's projection of each frame that the last call of `encode` returned, by the frame's bytes.
    """

    spec: ModelSpec
    lookahead: int
    graphs: dict[str, Interface]
    run: Run
    _projected: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> AppleState:
        slots = self.spec.check_prompts(batch, prompts) or [0] * batch
        caches = {
            name: {cache: np.zeros(graph.inputs[cache].of(), graph.inputs[cache].dtype) for cache in CONFORMER_CACHES}
            for name, graph in self._conformer().items()
        }
        return AppleState((caches,) * batch, np.zeros(batch, np.int64), np.array(slots, np.int64))

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: AppleState):
        """Encodes as `Session.encode` does. Raises UsageError for windows of another lookahead."""
        streaming = self.spec.require_streaming()
        sizes = {streaming.window_mel_frames(self.lookahead, first=first): first for first in (True, False)}
        if mel.shape[2] not in sizes:
            raise UsageError(
                "These graphs have fixed shapes, for one lookahead.",
                expected=f"windows of {' or '.join(map(str, sizes))} mel frames, those of lookahead {self.lookahead}",
                found=f"{mel.shape[2]} mel frames",
                todo=f"choose lookahead {self.lookahead}, or export the checkpoint for another one (--profile)",
            )
        first = sizes[mel.shape[2]]
        # Later windows begin with frames that the caches of the subsampling replace.
        cached = 0 if first else streaming.pre_encode_cache_mel_frames
        self._projected.clear()
        frames, caches = [], []
        for row in range(len(mel)):
            new = mel[row : row + 1, :, cached:].transpose(0, 2, 1)
            encoded, kept = self._chunk(new, int(lengths[row]) - cached, first, state, row)
            frames.append(encoded)
            caches.append(kept)
        length = np.minimum(state.length + self.lookahead + 1, streaming.left_context_enc_frames)
        frame_lengths = -(-(lengths - cached) // streaming.subsampling_factor)
        return np.stack(frames), frame_lengths, AppleState(tuple(caches), length, state.prompt_index)

    def _chunk(self, mel: np.ndarray, length: int, first: bool, state: AppleState, row: int) -> tuple[np.ndarray, Cached]:
        """Encodes one stream's chunk: mel f32 [1, T, n_mels], `length` frames valid -> (f32 [frames, d_model], caches)."""
        streaming = self.spec.require_streaming()
        before, count = state.caches[row], self.lookahead + 1
        feeds = {"mel": mel, "length": np.array([length])} | ({} if first else before[PRE])
        subsampled = self._run(PRE_FIRST if first else PRE, feeds)
        kept: Cached = {PRE: _kept(subsampled, PRE_CACHES)}
        valid = -(-length // streaming.subsampling_factor)
        feeds = {"x": subsampled["embeds"], "neg_mask": negative_mask(streaming, count, int(state.length[row]), valid)}
        if self.spec.prompt:
            feeds["one_hot"] = np.eye(self.spec.prompt.slots)[state.prompt_index[row : row + 1]]
        outputs: Mapping[str, np.ndarray] = {}
        for name in self._conformer():
            outputs = self._run(name, {**feeds, **before[name]})
            kept[name] = _kept(outputs, CONFORMER_CACHES)
            if "y" in outputs:  # of all parts but the last
                feeds["x"] = outputs["y"]
        encoded = np.array(outputs["encoded"][0], np.float32)
        self._projected |= {frame.tobytes(): one for frame, one in zip(encoded, outputs["enc_proj"][0], strict=True)}
        return encoded, kept

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        """Scores as `Session.step` does, frames that the last call of `encode` returned: the joint takes their projections,
        which `encode` keeps. Raises UsageError for other frames."""
        scores = np.zeros((*frames.shape[:2], self.spec.decoding.n_scores), np.float32)
        hidden, cell = (np.empty_like(part) for part in state)
        for row, token in enumerate(tokens):
            one = slice(row, row + 1)
            predicted = self._run(PREDICT, {"token": np.array([[token]]), "h": state[0][:, one], "c": state[1][:, one]})
            hidden[:, one], cell[:, one] = predicted[f"h{NEXT}"], predicted[f"c{NEXT}"]
            joined: dict[bytes, np.ndarray] = {}  # the decoder repeats a chunk's last frame to fill its window
            for at, frame in enumerate(np.ascontiguousarray(frames[row], np.float32)):
                if (key := frame.tobytes()) not in joined:
                    feeds = {"dec_out": predicted["dec_out"], "enc_frame": self._projection(key)[None]}
                    joined[key] = self._run(JOINT, feeds)["token_logits"][0]
                scores[row, at] = joined[key]
        return scores, (hidden, cell)

    def _projection(self, frame: bytes) -> np.ndarray:
        if frame not in self._projected:
            raise UsageError(
                "These frames are not those of the last chunk.",
                expected="frames as the last call of encode returned them",
                found="others",
                todo="decode a chunk before the next one is encoded",
            )
        return self._projected[frame]

    def stack(self, states: list[AppleState]) -> AppleState:
        caches = tuple(caches for state in states for caches in state.caches)
        numbers = (np.concatenate([getattr(state, name) for state in states]) for name in ("length", "prompt_index"))
        return AppleState(caches, *numbers)

    def unstack(self, state: AppleState) -> list[AppleState]:
        rows = [slice(row, row + 1) for row in range(len(state.length))]
        return [AppleState(state.caches[row], state.length[row], state.prompt_index[row]) for row in rows]

    def _conformer(self) -> dict[str, Interface]:
        """Returns the parts of the conformer, in order."""
        return {name: graph for name, graph in self.graphs.items() if name.startswith(CONFORMER)}

    def _run(self, graph: str, feeds: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        types = self.graphs[graph].inputs
        return self.run(graph, {name: np.ascontiguousarray(feeds[name], tensor.dtype) for name, tensor in types.items()})


def _kept(outputs: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: outputs[f"{name}{NEXT}"] for name in names}
