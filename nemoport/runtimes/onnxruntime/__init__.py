"""ONNX Runtime: on the CPU, and on devices with a memory of their own."""

from __future__ import annotations

from nemoport.artifact import ONNXRUNTIME, Artifact
from nemoport.runtime import Runtime
from nemoport.runtimes.onnxruntime import graphs
from nemoport.runtimes.onnxruntime.device import DeviceSession
from nemoport.runtimes.onnxruntime.session import DEVICES, PACKAGE, OnnxSession
from nemoport.session import Session


def open_artifact(artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
    """Opens an artifact, with its caches in the device's memory where the provider has one. Raises as `session.open_graph`."""
    if provider in DEVICES and artifact.spec.streaming:
        return DeviceSession.open(artifact, provider, threads)
    return OnnxSession.open(artifact, provider, threads)


RUNTIME = Runtime(
    name=ONNXRUNTIME,
    title="ONNX",
    library="onnx",
    package=PACKAGE,
    open_session=open_artifact,
    expected=graphs.expected,
    found=graphs.found,
    problems=graphs.problems,
    optional=frozenset({"target_length", "prednet_lengths"}),  # NeMo's interface has them
)
