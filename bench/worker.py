"""One row of bench/streaming.py: an encoder in a process of its own, so that its peak memory is its own.

Started by bench/streaming.py. Reads a JSON object a line from stdin and answers with one:
{"lookahead": r, "streams": n, "chunks": k} runs k chunks of n streams, which go on from where they were, and gives the
milliseconds of each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nemoport.spec import ModelSpec
from nemoport.validate.probe import peak_bytes

Step = Callable[[np.ndarray, np.ndarray], None]  # mel f32 [B, n_mels, T], lengths i64 [B]: one chunk, caches carried


def of_artifact(folder: str, threads: int, provider: str) -> tuple[ModelSpec, Callable[[int, int], Step]]:
    """One of our variants, by nemoport's own session of its runtime."""
    from nemoport.artifact import Artifact
    from nemoport.runtimes import open_session

    artifact = Artifact.open(folder)
    return of_session(open_session(artifact, provider, threads), artifact.spec)


def of_nemo_export(folder: str, threads: int, provider: str) -> tuple[ModelSpec, Callable[[int, int], Step]]:
    """Graphs of NeMo's own `model.export()`, with the checkpoint's spec beside them."""
    from nemoport.runtimes.onnxruntime.session import OnnxSession

    spec = ModelSpec.from_dict(json.loads((Path(folder) / "spec.json").read_text()))
    session = OnnxSession(spec, Path(folder) / "encoder.onnx", Path(folder) / "decoder.onnx", threads=threads)
    return of_session(session, spec)


def of_session(session, spec: ModelSpec) -> tuple[ModelSpec, Callable[[int, int], Step]]:
    def begin(lookahead: int, streams: int) -> Step:
        state = session.initial_state(streams, range(streams) if spec.prompt else [])

        def step(mel, lengths):
            nonlocal state
            _, _, state = session.encode(mel, lengths, state)

        return step

    return spec, begin


def of_nemo(checkpoint: str, threads: int, provider: str) -> tuple[ModelSpec, Callable[[int, int], Step]]:
    """NeMo itself, in torch."""
    import torch

    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.validate import nemo

    torch.set_num_threads(threads)
    read = read_checkpoint(checkpoint)
    model = nemo.restore(read)

    def begin(lookahead: int, streams: int) -> Step:
        model.encoder.set_default_att_context_size([read.spec.streaming.left_context_enc_frames, lookahead])
        caches = model.encoder.get_initial_cache_state(batch_size=streams)

        def step(mel, lengths):
            nonlocal caches
            with torch.inference_mode():
                _, _, *caches = model.encoder.cache_aware_stream_step(
                    processed_signal=torch.from_numpy(mel),
                    processed_signal_length=torch.from_numpy(lengths),
                    cache_last_channel=caches[0],
                    cache_last_time=caches[1],
                    cache_last_channel_len=caches[2],
                    keep_all_outputs=False,
                    drop_extra_pre_encoded=read.spec.streaming.drop_enc_frames,
                )

        return step

    return read.spec, begin


class Machine:
    """What the machine itself does in the time: `step` is one measurement, whatever it is handed."""

    def __init__(self, step: Callable[[], None]):
        self._step = step

    def begin(self, lookahead: int, streams: int) -> Step:
        return lambda mel, lengths: self._step()


def reading(_: str, threads: int, provider: str):
    """Milliseconds to read a GiB from memory."""
    import torch

    torch.set_num_threads(threads)
    values = torch.ones(2**28)
    return None, Machine(values.sum).begin


def multiplying(dtype: str):
    """Milliseconds for 2**32 multiply-accumulates, in onnxruntime: 1024 frames by a matrix of 1024 x 4096."""

    def open_(_: str, threads: int, provider: str):
        import onnxruntime as ort
        from onnx import TensorProto, helper, numpy_helper

        weight = np.ones((1024, 4096), np.float32 if dtype == "floats" else np.int8)
        kind = ("MatMul", TensorProto.FLOAT) if dtype == "floats" else ("MatMulInteger", TensorProto.UINT8)
        out = TensorProto.FLOAT if dtype == "floats" else TensorProto.INT32
        graph = helper.make_graph(
            [helper.make_node(kind[0], ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", kind[1], [1024, 1024])],
            [helper.make_tensor_value_info("y", out, None)],
            [numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        x = np.ones((1024, 1024), np.float32 if dtype == "floats" else np.uint8)
        return None, Machine(lambda: session.run(None, {"x": x})).begin

    return open_


KINDS = {"artifact": of_artifact, "nemo-export": of_nemo_export, "nemo": of_nemo, "read": reading}
KINDS |= {f"multiply {dtype}": multiplying(dtype) for dtype in ("floats", "integers")}


def main(kind: str, path: str, threads: str, provider: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    spec, begin = KINDS[kind](path, int(threads), provider)
    running = {}  # (lookahead, streams) -> a step and what it is fed
    print(json.dumps({"peak_bytes": peak_bytes()}), file=answers, flush=True)
    for line in sys.stdin:
        order, milliseconds = json.loads(line), []
        key = order["lookahead"], order["streams"]
        if key not in running:
            mel = lengths = None
            if spec is not None:
                size = spec.streaming.window_mel_frames(key[0], first=False)
                noise = np.random.default_rng(0).normal(-8.0, 4.0, (key[1], spec.frontend.n_mels, size))
                mel, lengths = noise.astype(np.float32), np.full(key[1], size, np.int64)
            running[key] = begin(*key), mel, lengths
        step, mel, lengths = running[key]
        for _ in range(order["chunks"]):
            started = time.perf_counter()
            step(mel, lengths)
            milliseconds.append(1000 * (time.perf_counter() - started))
        print(json.dumps({"ms": milliseconds, "peak_bytes": peak_bytes()}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
