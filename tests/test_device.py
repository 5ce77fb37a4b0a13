"""Caches that stay in the memory of a device. The CPU's stands in for it: what is carried must be the same bit for bit."""

import sys

import numpy as np
import pytest

from nemoport.artifact import Artifact
from nemoport.cache_layout import KV, NEMO, variant_of
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.runtimes.onnxruntime import open_artifact
from nemoport.runtimes.onnxruntime.device import DeviceMemory, DeviceSession
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.stream import Stream, advance

CONTRACTS = pytest.mark.parametrize("contract", [NEMO, KV])


@pytest.fixture(scope="module", params=["tiny", "tiny-multilingual"])
def build(request, random_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    for contract in (NEMO, KV):
        export_checkpoint(read_checkpoint(str(random_checkpoint(request.param))), folder, contract)
    return folder


def streams_of(session, artifact, lookahead, count):
    """Of different lengths, all longer than the left context but the first, each told another language."""
    rng, spec = np.random.default_rng(0), session.spec
    left = spec.streaming.left_context_enc_frames * spec.frame_seconds * spec.frontend.sample_rate_hz
    for i in range(count):
        stream = Stream(session, artifact.filterbank(), lookahead, prompt=i if spec.prompt else None)
        stream.push(rng.normal(0, 0.1, int(left * (0.4 + 0.9 * i))).astype(np.float32))
        stream.close()
        yield stream


def frames_of(session, artifact, lookahead):
    """Of each of four streams, of which one joins at each step, until all have ended."""
    waiting = list(streams_of(session, artifact, lookahead, 4))
    running, frames = [], {}
    while waiting or any(stream.chunks for stream in running):
        if waiting:
            running.append(waiting.pop())
            frames[id(running[-1])] = []
        running = [stream for stream in running if stream.chunks]
        for stream, new in zip(running, advance(session, running), strict=True):
            frames[id(stream)].append(new)
    return [np.concatenate(parts) for parts in frames.values()]


@CONTRACTS
def test_streams_that_join_and_leave_hear_the_same_from_the_device(build, contract):
    artifact = Artifact.open(build / variant_of(contract, "fp32"))
    for lookahead in artifact.spec.lookaheads[:2]:
        expected, found = (
            frames_of(kind.open(artifact, "cpu", threads=1), artifact, lookahead) for kind in (OnnxSession, DeviceSession)
        )
        assert all(map(np.array_equal, expected, found)) and len({len(f) for f in found}) == 4


@CONTRACTS
def test_caches_leave_the_device_only_with_a_stream(build, contract, monkeypatch):
    artifact = Artifact.open(build / variant_of(contract, "fp32"))
    session, fetched = DeviceSession.open(artifact, "cpu", threads=1), []
    fetch = DeviceMemory._fetch
    monkeypatch.setattr(DeviceMemory, "_fetch", lambda self, caches: fetched.append(caches) or fetch(self, caches))
    _, *pair = streams_of(session, artifact, artifact.spec.lookaheads[0], 3)
    for _ in range(6):
        advance(session, pair)
    assert len(fetched) == 2  # the two that became a batch
    while pair[0].chunks:
        advance(session, pair)
    advance(session, pair)
    assert len(fetched) == 3  # the one that was left


def test_a_machine_without_the_device_is_told(build):
    with pytest.raises(UsageError, match="'cuda' is not available"):
        open_artifact(Artifact.open(build / "fp32"), "cuda")


def test_joining_on_the_device_needs_onnx(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match="needs onnx"):
        DeviceSession.open(Artifact.open(build / "kv-fp32"), "cpu", threads=1)
