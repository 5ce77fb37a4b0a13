"""Runs an artifact in onnxruntime."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.cache_layout import caches_of
from nemoport.caches import Caches, PromptedState
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.graph_file import check_external_data
from nemoport.spec import ModelSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}
DEVICES = {"cuda": "cuda", "tensorrt": "cuda", "dml": "dml"}  # those with a memory of their own, and its name there
PACKAGE = "onnxruntime"
DECODER_OUTPUTS = ("outputs", "output_states_1", "output_states_2")


class OnnxSession:
    """`nemoport.session.Session` over a graph of either contract."""

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Path,
        decoder: Path,
        provider: str = "cpu",
        threads: int = 0,
        encoder_weights: Mapping[str, np.ndarray] | None = None,
    ):
        """threads: intra-op threads, 0 for onnxruntime's choice. encoder_weights: see `open_graph`."""
        self.spec = spec
        self._encoder = open_graph(encoder, provider, threads, encoder_weights)
        self._decoder = open_graph(decoder, provider, threads)
        _return_memory()

    @classmethod
    def open(cls, artifact: Artifact, provider: str = "cpu", threads: int = 0) -> OnnxSession:
        return cls(artifact.spec, artifact.encoder, artifact.decoder, provider, threads)

    @cached_property
    def _caches(self) -> type[Caches]:
        return caches_of(i.name for i in self._encoder.get_inputs())

    @cached_property
    def _outputs(self) -> tuple[str, ...]:
        return ("outputs", "encoded_lengths", *self._caches.outputs(self.spec.streaming))

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> Caches | PromptedState:
        slots = self.spec.check_prompts(batch, prompts)
        caches = self._caches.initial(self.spec.streaming, batch)
        return PromptedState(caches, np.array(slots, np.int64)) if self.spec.prompt else caches

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: Caches | PromptedState):
        feeds = {"audio_signal": mel, "length": lengths, **state.feeds()}
        frames, frame_lengths, *caches = self._encoder.run(self._outputs, feeds)
        return frames.transpose(0, 2, 1), frame_lengths, state.advance(caches)

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        feeds = {
            "encoder_outputs": np.ascontiguousarray(frames.transpose(0, 2, 1)),
            "targets": tokens[:, None],
            "target_length": np.ones(len(tokens), np.int32),
            "input_states_1": state[0],
            "input_states_2": state[1],
        }
        names = [i.name for i in self._decoder.get_inputs()]  # a graph may have pruned the unused target_length
        logits, hidden, cell = self._decoder.run(DECODER_OUTPUTS, {n: feeds[n] for n in names})
        return logits[:, :, 0], (hidden, cell)

    def stack(self, states: list[Caches | PromptedState]) -> Caches | PromptedState:
        return PromptedState.stack(states, self._caches) if self.spec.prompt else self._caches.stack(states)

    def unstack(self, state: Caches | PromptedState) -> list[Caches | PromptedState]:
        return state.rows()


def _return_memory() -> None:
    """Hands what loading has freed back to the system, where the C library can: with 8-bit blocks, whose weights
    onnxruntime rearranges, that was 400 of 1105 MB at 0.6B."""
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _name_missing_weights(graph: Path) -> None:
    """Raises ArtifactError if a file of weights is missing or too short, and nothing for whatever else is wrong."""
    try:
        check_external_data(graph)
    except ArtifactError:
        raise
    except Exception:  # no onnx, which running does not need; no file; no graph: onnxruntime has told already
        return


def open_graph(
    path: Path,
    provider: str = "cpu",
    threads: int = 0,
    weights: Mapping[str, np.ndarray] | None = None,
    optimised: Path | None = None,
):
    """An onnxruntime session. Raises UsageError for a provider that is not there, ArtifactError for a bad graph.

    weights: arrays that take the place of the graph's initializers of these names. optimised: where to write the graph
    that the runtime makes of it.
    """
    import onnxruntime as ort

    if provider not in PROVIDERS or PROVIDERS[provider] not in ort.get_available_providers():
        here = [name for name, full in PROVIDERS.items() if full in ort.get_available_providers()]
        raise UsageError(
            f"The execution provider {provider!r} is not available.",
            expected=f"one of {', '.join(here)}",
            found=f"onnxruntime {ort.__version__} with {', '.join(ort.get_available_providers())}",
            todo="choose one of these, or install an onnxruntime build that has it",
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Else the threads go on spinning between the chunks of a live stream: half as much processor time again, no faster.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{optimised.name}.data")
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in (weights or {}).items()}
    for name, value in values.items():
        options.add_initializer(name, value)
    try:
        behind = [PROVIDERS["cuda"]] if provider == "tensorrt" else []  # takes the nodes that TensorRT does not
        session = ort.InferenceSession(str(path), options, providers=[PROVIDERS[provider], *behind])
        session.nemoport_weights = values  # the session reads them where they are, and does not keep them alive
        return session
    except Exception as error:  # onnxruntime's own exception classes share no public base
        _name_missing_weights(path)
        raise ArtifactError(
            f"{path} cannot be loaded.",
            expected="a graph and its .data file, as they were built",
            found=f"onnxruntime {ort.__version__}: {first_line(error)}",
            todo="install onnxruntime 1.19 or later, which knows the graph's opset"
            if "opset" in str(error).lower()
            else "check it with `nemoport verify`, then build or download it again",
        ) from error
