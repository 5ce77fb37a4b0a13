"""A stranger's graph behind NeMo's names, axes and types, so that nemoport's own sessions run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nemoport.foreign.ports import (
    ATTENTION,
    COUNTS,
    FILLED,
    FRAMES,
    LENGTH,
    MASK,
    NEXT,
    PRE_CACHE,
    PROMPT,
    SCORES,
    SIGNAL,
    Port,
    Ports,
)
from nemoport.session import failed_run

_STATES = ("input_states_1", "input_states_2", "output_states_1", "output_states_2")
_BATCH_SECOND = ("cache_key_", "cache_value_", "cache_conv_", "key_new_", "value_new_", "conv_new_")


class Named(NamedTuple):
    """An input, as onnxruntime's `get_inputs` has it."""

    name: str


@dataclass
class Adapter:
    """A graph of `open_graph` with `get_inputs` and `run` by NeMo's names.

    Batch first, mel [B, bands, T], frames [B, d, T], caches [B, layers, ...], i64 lengths; a graph of one stream, or of one
    frame, is run once for each. left_mel_frames: zeros that go before a first window, of a graph that takes each window for a
    later one.
    """

    session: Any
    ports: Ports
    left_mel_frames: int = 0

    def get_inputs(self) -> list[Named]:
        names = [*self.ports.inputs]
        if MASK in names:
            names.append(PROMPT)
        return [Named(name) for name in names]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[np.ndarray]:
        batch = next(np.asarray(value).shape[_batch_axis(name)] for name, value in feeds.items() if np.ndim(value))
        if batch > 1 and self._single():
            rows = [self.run(outputs, {name: _row(name, value, i) for name, value in feeds.items()}) for i in range(batch)]
            return [_joined(name, [row[at] for row in rows]) for at, name in enumerate(outputs)]
        frames = feeds.get("encoder_outputs")
        if frames is not None and frames.shape[2] > 1 and self.ports.inputs["encoder_outputs"].shape[-1] == 1:
            runs = [self.run(outputs, {**feeds, "encoder_outputs": frames[:, :, i : i + 1]}) for i in range(frames.shape[2])]
            return [np.concatenate([run[0] for run in runs], 1), *runs[-1][1:]]
        return self._once(outputs, feeds)

    def _single(self) -> bool:
        port = self.ports.inputs.get(SIGNAL) or next(iter(self.ports.inputs.values()))
        return bool(port.shape) and port.shape[0] == 1

    def _once(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[np.ndarray]:
        fed = self._windowed(dict(feeds))
        tensors = {port.name: _as_graph(fed[name], port) for name, port in self.ports.inputs.items() if fed.get(name) is not None}
        named = {name: self._output(name) for name in outputs}
        wanted = dict.fromkeys(port.name for port in named.values())
        made = dict(zip(wanted, self.session.run(list(wanted), tensors, _quiet()), strict=True))
        return [self._finished(name, _as_nemo(made[port.name], port)) for name, port in named.items()]

    def _output(self, name: str) -> Port:
        """The graph's output; the frames themselves in place of a count that it does not have."""
        has = self.ports.outputs
        back = {value: key for key, value in NEXT.items()}
        port = has.get(back.get(name, name))
        if port is None and name == COUNTS:
            port = has.get(FRAMES) or has.get(SCORES)
        if port is None:
            raise failed_run("onnxruntime", ValueError(f"the graph has no output for {name}"))
        return port

    def _windowed(self, fed: dict[str, Any]) -> dict[str, Any]:
        """The feeds of a chunk with what this graph has in place of NeMo's: a padded window, a cache of its own, a mask."""
        if SIGNAL in fed:
            mel, length = fed[SIGNAL], np.asarray(fed.get(LENGTH))
            first = FILLED in fed and not np.any(fed[FILLED])
            if first and self.left_mel_frames:
                mel, length = np.pad(mel, ((0, 0), (0, 0), (self.left_mel_frames, 0))), length + self.left_mel_frames
            own = self.ports.inputs.get(PRE_CACHE)
            if own is not None:
                size = own.shape[-1] or 0
                fed[PRE_CACHE], mel, length = mel[..., :size], mel[..., size:], length - size
            static = self.ports.inputs[SIGNAL].shape[2]
            if static and mel.shape[2] < static:
                mel = np.pad(mel, ((0, 0), (0, 0), (0, static - mel.shape[2])))
            fed[SIGNAL], fed[LENGTH] = mel, length
            if ATTENTION in self.ports.inputs:
                fed[ATTENTION] = np.arange(mel.shape[2])[None] < length[:, None]
        if MASK in self.ports.inputs and PROMPT in fed:
            fed[MASK] = np.eye(self.ports.inputs[MASK].shape[1] or 1, dtype=np.float32)[fed[PROMPT]]
        if "targets" in fed and "target_length" in self.ports.inputs:
            fed.setdefault("target_length", np.ones(len(fed["targets"])))
        return fed

    def _finished(self, name: str, value: np.ndarray) -> np.ndarray:
        """A count of frames that the graph does not have, and scores of one frame, which it has with fewer axes."""
        if name == COUNTS and COUNTS not in self.ports.outputs:
            return np.full(len(value), value.shape[1 if SCORES in self.ports.outputs else 2], np.int64)
        if name == COUNTS:
            return value.reshape(-1).astype(np.int64)
        if name == "outputs" and "encoder_outputs" in self.ports.inputs and value.ndim < 4:
            return value.reshape(len(value), -1, 1, value.shape[-1])
        return value


def _quiet() -> Any:
    """A failed run is an error of Python's: onnxruntime need not print it too."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    return options


def _batch_axis(name: str) -> int:
    return 1 if name in _STATES or name.startswith(_BATCH_SECOND) else 0


def _row(name: str, value: Any, row: int) -> Any:
    if not np.ndim(value) or name == "att_context":
        return value
    return np.take(value, [row], _batch_axis(name))


def _joined(name: str, rows: Sequence[np.ndarray]) -> np.ndarray:
    if name in (FRAMES, SCORES) and rows[0].ndim == 3:  # frames of streams whose ends differ
        axis = 1 if name == SCORES else 2
        longest = max(row.shape[axis] for row in rows)
        rows = [np.pad(row, [(0, longest - row.shape[axis] if i == axis else 0) for i in range(3)]) for row in rows]
    return np.concatenate(rows, _batch_axis(name))


def _as_graph(value: Any, port: Port) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim == len(port.axes) and array.ndim > 1:
        array = array.transpose(np.argsort(port.axes))
    elif array.ndim != len(port.axes):
        array = array.reshape([1] * len(port.axes) if array.size == 1 else array.shape)
    return np.ascontiguousarray(array, dtype=port.tensor.dtype)


def _as_nemo(array: np.ndarray, port: Port) -> np.ndarray:
    moved = array.transpose(port.axes) if array.ndim == len(port.axes) and array.ndim > 1 else array
    return moved.astype(np.float32) if moved.dtype == np.float16 else moved
