"""What the tests of quantization share: a little calibration speech, and tokens of a variant."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from nemoport.artifact import Artifact
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.stream import Stream, advance

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio"
CALIBRATION = AUDIO / "calibration.jsonl"
FOR_OFFLINE = 12  # utterances, at least 34 s: one recording of a calibration


def quiet(line):
    pass


def short_manifest(folder: Path, first: int = 0, count: int = 8, speech: str = "") -> Path:
    """A manifest of a few of the committed calibration utterances, at least 23 s. speech: "", -tdt or -multi."""
    lines = (AUDIO / f"calibration{speech}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[first : first + count]]
    for row in rows:
        row["audio_filepath"] = str(AUDIO / row["audio_filepath"])
    path = folder / f"calibration-{first}-{count}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def transcribed(artifact: Artifact, corpus, lookahead: int, encoder: Path | None = None):
    """Tokens by utterance, and all encoder frames f32 [frames, d_model]."""
    session = OnnxSession(artifact.spec, encoder or artifact.encoder, artifact.decoder, threads=1)
    tokens, frames = [], []
    for utterance in corpus.utterances:
        stream = Stream(session, artifact.filterbank(), lookahead)
        stream.push(utterance.samples())
        stream.close()
        while stream.chunks:
            frames += advance(session, [stream])
        tokens.append(list(stream.tokens))
    return tokens, np.concatenate(frames)


def snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    reference, other = reference.astype(np.float64), other.astype(np.float64)
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))


def correlated(random, n, channels):
    """f32 [n, channels] of which most goes on in a few directions, as in a trained network."""
    mixing = random.standard_normal((channels, channels)) * np.logspace(0, -2, channels)[:, None]
    return (random.standard_normal((n, channels)) @ mixing).astype(np.float32)


def one_matmul(weight):
    rows, columns = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "m")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
