"""Session over an artifact's graphs in the LiteRT interpreter, on the CPU. The graphs run one stream: those of a batch are run
one after another, so that no stream can depend on its neighbours."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nemoport.caches import PROMPT, PromptedState
from nemoport.caches_kv import KvCaches
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.runtimes.litert.graphs import ctc_name, joint_frames, joint_name, window_name
from nemoport.session import EncoderState
from nemoport.spec import CTC, ModelSpec

PACKAGE = "ai-edge-litert"
OPERATORS = 10  # the field of a SubGraph in LiteRT's schema


class LitertSession:
    """`nemoport.session.Session` over the files that nemoport/export/targets/litert/ writes."""

    def __init__(self, spec: ModelSpec, encoder: Path, decoder: Path, threads: int = 0):
        """threads: 0 for the runtime's choice. Raises ArtifactError for files that cannot be loaded, UsageError for an offline
        model."""
        self.spec = spec
        self._streaming = streaming = spec.require_streaming()
        groups = [[window_name(lookahead, first) for first in (True, False)] for lookahead in streaming.lookaheads]
        self._encoder, self._decoder = Graph(encoder, threads, groups), Graph(decoder, threads)
        self._windows = {
            streaming.window_mel_frames(lookahead, first=first): (window_name(lookahead, first), first)
            for lookahead in streaming.lookaheads
            for first in (True, False)
            if window_name(lookahead, first) in self._encoder.signatures
        }
        self._joints = joint_frames(spec)

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> EncoderState:
        slots = self.spec.check_prompts(batch, prompts)
        caches = KvCaches.initial(self._streaming, batch)
        return PromptedState(caches, np.array(slots, np.int64)) if self.spec.prompt else caches

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState):
        """Encodes as `Session.encode` does. Raises UsageError for windows that the files have no graph for."""
        name, first = self._window(mel.shape[2])
        caches = state.caches if self.spec.prompt else state
        outputs = []
        for row in range(len(mel)):
            feeds = {"audio_signal": mel[row : row + 1], "length": lengths[row : row + 1].astype(np.int32)}
            if not first:
                views = zip(("cache_key", "cache_value", "cache_conv"), caches.windows, strict=True)
                feeds |= {cache: _stream(window.view(), row) for cache, window in views}
                feeds["cache_len"] = caches.length[row : row + 1].astype(np.int32)
            if self.spec.prompt:
                feeds[PROMPT] = state.prompt_index[row : row + 1].astype(np.int32)
            outputs.append(self._encoder.run(name, feeds))
        frames, frame_lengths = (np.concatenate([one[key] for one in outputs]) for key in ("outputs", "encoded_lengths"))
        return frames, frame_lengths.astype(np.int64), state.advance(self._added(outputs))

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        if self.spec.head == CTC:
            return np.stack([self._join(row, ctc_name, {}) for row in frames]), state
        scores, states = [], []
        for row, token in enumerate(tokens):
            feeds = {f"input_states_{i}": part[:, row : row + 1] for i, part in enumerate(state, 1)}
            one = self._decoder.run("predict", {"target": np.array([token], np.int32), **feeds})
            scores.append(self._join(frames[row], joint_name, {"prediction": one["prediction"]}))
            states.append((one["output_states_1"], one["output_states_2"]))
        hidden, cell = (np.concatenate(parts, 1) for parts in zip(*states, strict=True))
        return np.stack(scores), (hidden, cell)

    def stack(self, states: list[EncoderState]) -> EncoderState:
        return PromptedState.stack(states, KvCaches) if self.spec.prompt else KvCaches.stack(states)

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        return state.rows()

    def _window(self, mel_frames: int) -> tuple[str, bool]:
        if mel_frames not in self._windows:
            raise UsageError(
                "There is no graph for this window.",
                expected="one of " + ", ".join(f"{size} mel frames ({name})" for size, (name, _) in self._windows.items()),
                found=f"{mel_frames} mel frames",
                todo="choose a lookahead that the artifact has; pad the last window with zeros",
            )
        return self._windows[mel_frames]

    def _added(self, outputs: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Returns the frames that a chunk of each stream adds to the caches, as `KvCaches.advance` takes them: key, value and
        conv of each layer."""
        heads = (self._streaming.n_heads, -1)
        parts = [np.stack([one[key] for one in outputs], 2) for key in ("key_new", "value_new", "conv_new")]
        parts[:2] = (part.reshape(*part.shape[:3], *heads) for part in parts[:2])
        return [part[layer] for layer in range(self._streaming.n_layers) for part in parts]

    def _join(self, frames: np.ndarray, name: Callable[[int], str], feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Scores frames, f32 [T, d] of any T: f32 [T, n_scores]. name: of the signature for a number of frames; feeds: its other
        inputs."""
        longest, scores = self._joints[-1], []
        for at in range(0, len(frames), longest):
            part = frames[at : at + longest]
            size = next(size for size in self._joints if size >= len(part))
            padded = np.pad(part, ((0, size - len(part)), (0, 0)))[None]
            one = self._decoder.run(name(size), {"encoder_outputs": padded, **feeds})
            scores.append(one["scores"][0, : len(part)])
        return np.concatenate(scores)


def _stream(cached: np.ndarray, row: int) -> np.ndarray:
    """Returns the cache of one stream, [layers, frames, d], from that of a batch, [layers, frames, B, ...]."""
    return cached[:, :, row].reshape(*cached.shape[:2], -1)


class Graph:
    """A file's signatures. Those of a group are opened together when the first of them is run, and the others not at all:
    the interpreter packs the weights anew for each signature that it opens, and would keep as many copies of them.

    Of the other signatures one operator is left. Where a signature has none, the interpreter does without its fast kernels
    (XNNPACK) for all signatures behind it and reports nothing: half as fast, and in 8 bits less exact."""

    def __init__(self, path: Path, threads: int, groups: Sequence[Sequence[str]] = ()):
        """groups: of signature names; none for a single one of all signatures. Raises ArtifactError for a file that is not for
        LiteRT."""
        self._path, self._threads = path, threads
        self._runners: dict = {}
        with self._explained(), open(path, "rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.signatures = list(_subgraphs(whole))
        self._groups = groups or [self.signatures]

    def run(self, signature: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature: input name -> array in, output name -> array out. Raises ArtifactError if it cannot be loaded."""
        if signature not in self._runners:
            self._open(next(group for group in self._groups if signature in group))
        return self._runners[signature](**feeds)

    def _open(self, group: Sequence[str]) -> None:
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]  # only with the extra litert

        with self._explained(), open(self._path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            for name, operators in _subgraphs(content).items():
                if name not in group:
                    content[operators : operators + 4] = (1).to_bytes(4, "little")
            opened = Interpreter(model_content=content[:], num_threads=self._threads or None)
            content.close()
            self._runners |= {name: opened.get_signature_runner(name) for name in group if name in self.signatures}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, TypeError, IndexError, struct.error) as error:
            raise ArtifactError(
                f"{self._path} cannot be loaded.",
                expected="a graph as it was built",
                found=f"LiteRT: {first_line(error)}",
                todo="check it with `nemoport verify`, then build or download it again",
            ) from error


def _subgraphs(content: mmap.mmap) -> dict[str, int]:
    """Returns signature -> the place in the file of the number of its operators (a little-endian u32)."""
    from ai_edge_litert import schema_py_generated as schema  # pyright: ignore[reportMissingImports]  # only with the extra litert

    if not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError("no .tflite file")
    model = schema.Model.GetRootAs(content)
    found = {}
    for i in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(i)
        table = model.Subgraphs(signature.SubgraphIndex())._tab
        found[signature.SignatureKey().decode()] = table.Vector(table.Offset(OPERATORS)) - 4
    return found
