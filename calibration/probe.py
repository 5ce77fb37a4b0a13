"""Probes: sessions that also return tensors from inside a graph, without a second copy of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, first_line
from nemoport.runtimes.onnxruntime.session import OnnxSession

_SMALL_BYTES = 200_000_000  # of weights


class Probe:
    """An onnxruntime session of `graph` that keeps the values of the tensors named in `tensors` after each run, in `values`.

    With `max_abs` it keeps only the largest magnitude of each (f32 []), found inside the graph: the tensors themselves
    are freed as the run goes on. All must be f32 and inside `graph`. The weights stay in the graph's own .data file, so
    neither a copy on disk nor a message over protobuf's 2 GB is made.

    threads: intra-op, 0 for onnxruntime's choice, None for one where the weights are small: there two threads wait for
    each other longer than they compute (overflow scan of the reference checkpoint, busy 2 cores: 37 s against 16 s).
    Raises ArtifactError if onnxruntime cannot load the graph.
    """

    def __init__(self, graph: Path, tensors: Sequence[str], *, max_abs: bool = False, threads: int | None = None):
        import onnx

        model = onnx.load(graph, load_external_data=False)
        outputs = [_max_abs(model, name, i) for i, name in enumerate(tensors)] if max_abs else list(tensors)
        existing = {o.name for o in model.graph.output}
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name not in existing
        )
        self.values: dict[str, np.ndarray] = {}
        self._tensors, self._outputs = list(tensors), outputs
        self._session: Any = open_changed(model, graph, threads)

    def get_inputs(self) -> list[Any]:
        """As `InferenceSession.get_inputs`."""
        return self._session.get_inputs()

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `InferenceSession.run`; puts the probed tensors into `values`."""
        results: list[np.ndarray] = self._session.run([*names, *self._outputs], dict(feeds))
        self.values = dict(zip(self._tensors, results[len(names) :], strict=True))
        return results[: len(names)]


class ProbedSession(OnnxSession):
    """An artifact's session over probes: `encoder` and `decoder` hold the probed values of the last call."""

    def __init__(self, artifact: Artifact, encoder: Probe, decoder: Probe | None = None):
        self.spec = artifact.spec
        self.encoder, self.decoder = encoder, decoder
        self._encoder, self._decoder = encoder, decoder


def open_changed(model: Any, graph: Path, threads: int | None = None) -> Any:
    """Opens an onnx.ModelProto that was made of `graph`, whose .data holds its weights. threads, errors: as of `Probe`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads_for(graph) if threads is None else threads
    options.log_severity_level = 3
    # Waiting threads sleep: reading the values between two runs leaves them idle, and spinning would take the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise ArtifactError(
            f"{graph} cannot be run for calibration.",
            expected="an fp32 graph and its .data file, as `nemoport export` writes them",
            found=first_line(error),
            todo="check it with `nemoport verify`, then export again",
        ) from error


def threads_for(graph: Path) -> int:
    """The intra-op threads that measuring takes: one for a graph with small weights, else 0, which is onnxruntime's choice."""
    data = graph.with_name(f"{graph.name}.data")
    return 1 if not data.is_file() or data.stat().st_size < _SMALL_BYTES else 0


def _max_abs(model, tensor: str, index: int) -> str:
    """Adds ReduceMax(Abs(tensor)) and returns its name."""
    from onnx import helper

    magnitude, largest = f"nemoport_abs_{index}", f"nemoport_max_abs_{index}"
    model.graph.node.append(helper.make_node("Abs", [tensor], [magnitude]))
    model.graph.node.append(helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0))
    return largest
