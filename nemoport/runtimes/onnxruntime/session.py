"""Session over an artifact's graphs in onnxruntime, on any of its execution providers."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from nemoport.artifact import Artifact
from nemoport.cache_layout import caches_of
from nemoport.caches import CacheFactory, NemoCaches, PromptedState
from nemoport.caches_kv import KvCaches
from nemoport.caches_own import OwnCaches
from nemoport.errors import ArtifactError, UsageError, first_line
from nemoport.external_data import check_external_data
from nemoport.runtimes.onnxruntime.huge_pages import private_memory, use_huge_pages
from nemoport.session import EncoderState, check_frames, failed_run
from nemoport.spec import CTC, ModelSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}
DEVICES = {"cuda": "cuda", "tensorrt": "cuda", "dml": "dml"}  # providers with a memory of their own -> onnxruntime's name of it
PACKAGE = "onnxruntime"
DECODER_OUTPUTS = ("outputs", "output_states_1", "output_states_2")
OrtValue = Any  # of onnxruntime, which is imported when a graph is opened


class OnnxSession:
    """`nemoport.session.Session` over an encoder graph in either cache layout, or of an offline model, and a decoder graph."""

    _encoder: Any  # sessions of onnxruntime, see `open_graph`, or others with their get_inputs and run
    _decoder: Any

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Path,
        decoder: Path,
        provider: str = "cpu",
        threads: int = 0,
        encoder_weights: Mapping[str, np.ndarray] | None = None,
    ):
        """threads: intra-op threads, 0 for onnxruntime's choice. encoder_weights: arrays that take the place of the encoder's
        initializers of these names. Raises as `open_graph`."""
        self.spec = spec
        weights, before = ort_values(encoder_weights or {}), private_memory()
        self._encoder = open_graph(encoder, provider, threads, weights)
        self._weights = weights  # onnxruntime reads them where they are and does not keep them alive
        self._decoder = open_graph(decoder, provider, threads)
        _return_memory()
        use_huge_pages(before)

    @classmethod
    def open(cls, artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Self:
        """Opens an artifact. Raises as `open_graph`."""
        return cls(artifact.spec, artifact.encoder, artifact.decoder, provider, threads)

    @cached_property
    def _caches(self) -> CacheFactory:
        return caches_of(i.name for i in self._encoder.get_inputs())

    def keep_apart(self) -> None:
        """Lets each stream keep its caches in arrays of its own, for batches that have other members with each chunk; see
        nemoport/caches_own.py. Nothing changes for a model without caches. To be called before the first state is made."""
        layout = caches_of(i.name for i in self._encoder.get_inputs())
        if layout in (NemoCaches, KvCaches):
            self._caches = OwnCaches(layout, self.spec.require_streaming())

    @cached_property
    def _outputs(self) -> tuple[str, ...]:
        return ("outputs", "encoded_lengths", *self._caches.outputs(self.spec.streaming))

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> EncoderState:
        slots = self.spec.check_prompts(batch, prompts)
        caches = self._caches.initial(self.spec.streaming, batch)
        return PromptedState(caches, np.array(slots, np.int64)) if self.spec.prompt else caches

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState):
        feeds = {"audio_signal": mel, "length": lengths, **state.feeds()}
        frames, frame_lengths, *caches = run(self._encoder, self._outputs, feeds)
        frames = frames.transpose(0, 2, 1)
        check_frames(frames, frame_lengths, len(mel), self.spec)
        try:
            return frames, frame_lengths, state.advance(caches)
        except (ValueError, IndexError) as error:  # caches of other shapes than config.json gives
            raise failed_run("its caches", error) from error

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        encoded = np.ascontiguousarray(frames.transpose(0, 2, 1))
        if self.spec.head == CTC:
            (scores,) = run(self._decoder, ("logprobs",), {"encoder_outputs": encoded})
            return scores, state
        feeds = {
            "encoder_outputs": encoded,
            "targets": tokens[:, None],
            "target_length": np.ones(len(tokens), np.int32),
            "input_states_1": state[0],
            "input_states_2": state[1],
        }
        names = [i.name for i in self._decoder.get_inputs()]  # a graph may have pruned the unused target_length
        logits, hidden, cell = run(self._decoder, DECODER_OUTPUTS, {n: feeds[n] for n in names if n in feeds})
        return logits[:, :, 0], (hidden, cell)

    def stack(self, states: list[EncoderState]) -> EncoderState:
        return PromptedState.stack(states, self._caches) if self.spec.prompt else self._caches.stack(states)

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        return state.rows()


def run(graph: Any, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Runs a graph of `open_graph`. Raises ArtifactError where it fails."""
    try:
        return graph.run(outputs, feeds)
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise failed_run("onnxruntime", error) from error


def _return_memory() -> None:
    """Returns memory that loading has freed to the system, where the C library can: with 8-bit blocks, whose weights
    onnxruntime rearranges, that was 400 of 1105 MB at 0.6B."""
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def ort_values(arrays: Mapping[str, np.ndarray]) -> dict[str, OrtValue]:
    """Returns onnxruntime's values over the arrays, by name, without a copy."""
    import onnxruntime as ort

    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def open_graph(
    path: Path,
    provider: str = "cpu",
    threads: int = 0,
    weights: Mapping[str, OrtValue] | None = None,
    optimised: Path | None = None,
) -> Any:  # onnxruntime.InferenceSession, whose stubs give each output four types: an array, or what these graphs never return
    """Opens a graph in onnxruntime.

    provider: a key of PROVIDERS. threads: intra-op threads, 0 for onnxruntime's choice. weights: values that take the place of
    the graph's initializers of these names; the caller keeps them as long as the session. optimised: where to write the graph
    as onnxruntime has optimised it. Raises UsageError for a provider that is absent, ArtifactError for a graph that cannot be
    loaded and for one whose weights are elsewhere than beside it.
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
    check_external_data(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Else the threads go on spinning between the chunks of a live stream: half as much processor time again, no faster.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{optimised.name}.data")
    for name, value in (weights or {}).items():
        options.add_initializer(name, value)
    try:
        behind = [PROVIDERS["cuda"]] if provider == "tensorrt" else []  # takes the nodes that TensorRT does not
        return ort.InferenceSession(str(path), options, providers=[PROVIDERS[provider], *behind])
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise ArtifactError(
            f"{path} cannot be loaded.",
            expected="a graph and its .data file, as they were built",
            found=f"onnxruntime {ort.__version__}: {first_line(error)}",
            todo="install onnxruntime 1.19 or later, which has the graph's opset"
            if "opset" in str(error).lower()
            else "check it with `nemoport verify`, then build or download it again",
        ) from error
