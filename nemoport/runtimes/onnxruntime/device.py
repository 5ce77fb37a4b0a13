"""Session in onnxruntime for providers with a memory of their own: a stream's caches stay there from chunk to chunk.

At 0.6B they are 14 MB a stream (kv; 7 in NeMo's layout), which a plain run would copy both ways with every chunk. Here a
chunk copies its mel there and its frames back, and only streams that join or leave a batch pass through the CPU's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.cache_layout import caches_of
from nemoport.caches import CacheFactory, Caches, NemoCaches, Row, rows_of, whole_batch
from nemoport.caches_kv import KvCaches
from nemoport.errors import UsageError
from nemoport.files import scratch_folder
from nemoport.runtimes.onnxruntime.session import DEVICES, OnnxSession, OrtValue, open_graph
from nemoport.session import EncoderState
from nemoport.spec import ModelSpec, StreamingSpec

ON_CPU = ("outputs", "encoded_lengths", "cache_last_channel_next_len")
NEW, NEXT = ".new", ".next"


class DeviceSession(OnnxSession):
    """`nemoport.session.Session` over an encoder graph in either cache layout; encoder states are `DeviceCaches`."""

    def __init__(self, spec: ModelSpec, encoder: Path, decoder: Path, provider: str, threads: int = 0, **options):
        """Takes the arguments of `OnnxSession`. Raises UsageError also for an offline model, and for kv caches without onnx."""
        super().__init__(spec, encoder, decoder, provider, threads, **options)
        self._device = DEVICES.get(provider, provider)
        kind = KvCaches if caches_of(i.name for i in self._encoder.get_inputs()) is KvCaches else NemoCaches
        self._memory = DeviceMemory(kind, spec.require_streaming(), self._device, provider)

    @cached_property
    def _caches(self) -> CacheFactory:
        return self._memory

    def encode(self, mel: np.ndarray, lengths: np.ndarray, state: EncoderState):
        binding = self._encoder.io_binding()
        for name, value in {"audio_signal": mel, "length": lengths, **state.feeds()}.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu" if name in ON_CPU else self._device)
        self._encoder.run_with_iobinding(binding)
        frames, frame_lengths, *caches = binding.get_outputs()
        return frames.numpy().transpose(0, 2, 1), frame_lengths.numpy(), state.advance(caches)


class DeviceMemory:
    """The `nemoport.caches.CacheFactory` of `DeviceCaches`. kind: the class of caches of the graph's layout."""

    def __init__(self, kind: type[NemoCaches | KvCaches], spec: StreamingSpec, device: str, provider: str):
        self._kind, self._spec, self._device = kind, spec, device
        self.outputs = kind.outputs
        *self._names, self.length_name = kind.shapes(spec, 1)  # in the graph's order
        self._appending = open_appending(spec, provider) if kind is KvCaches else None

    def initial(self, spec: StreamingSpec, batch: int) -> DeviceCaches:
        """Returns the caches of `batch` new streams."""
        return self._put(self._kind.initial(spec, batch))

    def advance(self, state: DeviceCaches, outputs: Sequence[OrtValue]) -> DeviceCaches:
        """Returns the caches after a run that was fed `state` and returned `outputs`, without a copy to the CPU's memory."""
        if self._appending is None:
            *whole, length = outputs
            return DeviceCaches(self, dict(zip(state.arrays, whole, strict=True)), length.numpy())
        binding = self._appending.io_binding()
        for (name, cache), new in zip(state.arrays.items(), outputs, strict=True):
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_input(name + NEW, new)
            binding.bind_output(name + NEXT, self._device)
        self._appending.run_with_iobinding(binding)
        length = np.minimum(state.length + outputs[0].shape()[0], self._spec.left_context_enc_frames)
        return DeviceCaches(self, dict(zip(state.arrays, binding.get_outputs(), strict=True)), length)

    def stack(self, states: Sequence[Row]) -> DeviceCaches:
        """Joins streams into a batch, in the CPU's memory unless they are a whole batch already."""
        if (batch := whole_batch(states)) is not None:
            return batch
        batches = {id(s.batch): s.batch for s in states}
        fetched = {key: self._fetch(batch).rows() for key, batch in batches.items()}
        return self._put(self._kind.stack([fetched[id(s.batch)][s.row] for s in states]))

    def _put(self, caches: Caches) -> DeviceCaches:
        import onnxruntime as ort

        def moved(array: np.ndarray) -> OrtValue:
            return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

        feeds = caches.feeds()
        return DeviceCaches(self, {name: moved(feeds[name]) for name in self._names}, caches.length)

    def _fetch(self, caches: DeviceCaches) -> Caches:
        arrays = {name: array.numpy() for name, array in caches.arrays.items()}
        return self._kind.of_feeds({**arrays, self.length_name: caches.length})


@dataclass(frozen=True)
class DeviceCaches:
    """Encoder state of a batch of streams. arrays: the caches in the device's memory, by input name; length: i64 [B]."""

    memory: DeviceMemory
    arrays: dict[str, OrtValue]
    length: np.ndarray

    def feeds(self) -> dict[str, OrtValue | np.ndarray]:
        return {**self.arrays, self.memory.length_name: self.length}

    def advance(self, outputs: Sequence[OrtValue]) -> DeviceCaches:
        return self.memory.advance(self, outputs)

    def rows(self) -> list[Row]:
        return rows_of(self)


def open_appending(spec: StreamingSpec, provider: str) -> Any:
    """Opens a graph that appends to each cache of the kv layout the frames that a chunk adds, and drops as many in front.

    NAME f32 [C, ...], NAME.new f32 [T, ...] -> NAME.next f32 [C, ...]. Raises UsageError where onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise UsageError(
            "The kv cache layout on a device needs onnx, which joins the caches there.",
            expected="onnx installed",
            found="none",
            todo="pip install onnx, or choose a variant without kv-, which has the nemo cache layout",
        ) from error

    nodes, inputs, outputs, numbers = [], [], [], {"last": 2**63 - 1, "axis": 0}
    *caches, _ = KvCaches.shapes(spec, 1).items()
    for name, (frames, _, *rest) in caches:
        numbers[f"first.{frames}"] = -frames
        shape = ["batch", *rest]
        values = [
            helper.make_tensor_value_info(f"{name}{end}", TensorProto.FLOAT, [count, *shape])
            for end, count in (("", frames), (NEW, "T"), (NEXT, frames))
        ]
        inputs += values[:2]
        outputs.append(values[2])
        nodes.append(helper.make_node("Concat", [name, name + NEW], [f"{name}.both"], axis=0))
        nodes.append(helper.make_node("Slice", [f"{name}.both", f"first.{frames}", "last", "axis"], [name + NEXT]))
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "append", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with scratch_folder() as folder:
        onnx.save(model, folder / "append.onnx")
        return open_graph(folder / "append.onnx", provider)
