"""Session over an artifact's graphs in OpenVINO."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import Artifact
from nemoport.caches import CacheFactory, NemoCaches, NoCaches, PromptedState
from nemoport.caches_kv import KvCaches
from nemoport.errors import ArtifactError, UsageError
from nemoport.runtimes.openvino.graphs import CTC_HEAD, DECODER, ENCODER, JOINT, PREPROCESSOR, RENAMED, graphs_of
from nemoport.runtimes.openvino.metadata import read_properties
from nemoport.runtimes.openvino.state import StateCaches
from nemoport.session import EncoderState, check_frames, failed_run
from nemoport.spec import CTC, ModelSpec

PACKAGE = "openvino"
NAMES = RENAMED[ENCODER]  # NeMo's name of a tensor -> its name in the encoder


class OpenVinoSession:
    """`nemoport.session.Session` over encoder, decoder and joint, or encoder and CTC head. An encoder that keeps its caches as
    state runs one stream at a time: those of a batch are run one after another."""

    def __init__(self, spec: ModelSpec, folder: Path, provider: str = "cpu", threads: int = 0):
        """folder: of the graphs and metadata.json, see `read_properties`. provider: as in
        `_device`. threads: 0 for OpenVINO's choice. Raises UsageError for a provider that is absent, ArtifactError for graphs
        that cannot be loaded."""
        self.spec = spec
        settings = {"PERFORMANCE_HINT": "LATENCY", **read_properties(folder)}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        graphs = {name: Graph(folder / f"{name}.xml", provider, settings) for name in graphs_of(spec) if name != PREPROCESSOR}
        self._encoder, self._heads = graphs.pop(ENCODER), graphs
        self._caches = _caches_of(spec, self._encoder.inputs)
        self._outputs = [NAMES.get(name, name) for name in self._caches.outputs(spec.streaming)]

    @staticmethod
    def open(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> OpenVinoSession:
        """Opens an artifact. Raises UsageError, ArtifactError."""
        return OpenVinoSession(artifact.spec, artifact.folder, provider, threads)

    def initial_state(self, batch: int, prompts: Sequence[int] = ()) -> EncoderState:
        slots = self.spec.check_prompts(batch, prompts)
        source = self._encoder.compiled if self._caches is StateCaches else self.spec.streaming
        caches = self._caches.initial(source, batch)
        return PromptedState(caches, np.array(slots, np.int64)) if self.spec.prompt else caches

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState):
        """Encodes as `Session.encode` does. Raises ArtifactError for a graph whose frames do not match their counts, as where its
        state is never written."""
        named: dict[str, np.ndarray] = {"audio_signal": mel, "length": lengths, **state.feeds()}
        feeds = {NAMES.get(name, name): values for name, values in named.items()}
        caches = state.caches if self.spec.prompt else state
        if isinstance(caches, StateCaches):
            each = [
                self._encoder.run({name: values[row : row + 1] for name, values in feeds.items()}, request)
                for row, request in enumerate(caches.requests(len(mel)))
            ]
            found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        else:
            found = self._encoder.run(feeds)
        frames, counts = found["encoded"].transpose(0, 2, 1), found["encoded_length"]
        check_frames(frames, counts, len(mel), self.spec)
        return frames, counts, state.advance([found[name] for name in self._outputs])

    def step(self, frames: np.ndarray, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]):
        encoded = {"encoder": np.ascontiguousarray(frames.transpose(0, 2, 1))}
        if self.spec.head == CTC:
            return self._heads[CTC_HEAD].run(encoded)["logprobs"], state
        feeds = {"token": tokens[:, None], "token_length": np.ones(len(tokens), np.int32), "h_in": state[0], "c_in": state[1]}
        predicted = self._heads[DECODER].run(feeds)
        logits = self._heads[JOINT].run({**encoded, "decoder": predicted["decoder_out"]})["logits"]
        return logits[:, :, 0], (predicted["h_out"], predicted["c_out"])

    def stack(self, states: list[EncoderState]) -> EncoderState:
        return PromptedState.stack(states, self._caches) if self.spec.prompt else self._caches.stack(states)

    def unstack(self, state: EncoderState) -> list[EncoderState]:
        return state.rows()


class Graph:
    """One compiled graph, fed and read by name. inputs: their names."""

    def __init__(self, path: Path, provider: str, settings: Mapping):
        """settings: OpenVINO's properties. Raises UsageError for a provider that is absent, ArtifactError for a graph that cannot
        be loaded."""
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
            self.compiled = core.compile_model(model, _device(core, provider), dict(settings))
        except RuntimeError as error:
            raise ArtifactError(
                f"{path} cannot be loaded.",
                expected="a graph and its .bin file, as they were built",
                found=f"OpenVINO: {str(error).strip().splitlines()[-1].strip()}",
                todo="check it with `nemoport verify`, then build or download it again",
            ) from error
        self.inputs = {port.get_any_name() for port in self.compiled.inputs}
        self._names = [port.get_any_name() for port in model.outputs]  # a compiled one can have names of inner tensors too
        self._integers = {p.get_any_name() for p in self.compiled.inputs if p.get_element_type().is_integral()}
        self._request = self.compiled.create_infer_request()

    def run(self, feeds: Mapping[str, np.ndarray], request: Any = None) -> dict[str, np.ndarray]:
        """Runs the graph: input name -> array in, output name -> a new array out. Integers may have any width. request: an infer
        request of `compiled` to run in, by default the graph's own."""
        cast = {name: v.astype(np.int32) if name in self._integers else v for name, v in feeds.items()}
        try:
            results = (request or self._request).infer(cast, share_inputs=True)
        except (RuntimeError, KeyError) as error:
            raise failed_run("OpenVINO", error) from error
        return {name: results[name] for name in self._names}


def _caches_of(spec: ModelSpec, inputs: Container[str]) -> CacheFactory:
    """Returns what makes the encoder states of a graph. inputs: names of the encoder's inputs."""
    if spec.streaming is None:
        return NoCaches
    if NAMES["cache_last_channel"] in inputs:
        return NemoCaches
    return KvCaches if "cache_len" in inputs else StateCaches


def _device(core: Any, provider: str) -> str:
    """Returns OpenVINO's name of a device: cpu -> CPU, gpu.1 -> GPU.1, gpu -> GPU, which is the first of several, npu -> NPU.
    Raises UsageError for one that is absent."""
    present = core.available_devices
    if provider.upper() not in {*present, *(device.partition(".")[0] for device in present)}:
        raise UsageError(
            f"OpenVINO has no device for the provider {provider!r} here.",
            expected=f"one of {', '.join(device.lower() for device in present)}",
            found=provider,
            todo="choose one of these, or install the device's driver",
        )
    return provider.upper()
