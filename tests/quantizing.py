"""What the tests of quantization share: a little calibration speech, and tokens of a variant."""

import json
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.stream import Stream, advance

CALIBRATION = Path(__file__).resolve().parent.parent / "reference" / "audio" / "calibration.jsonl"


def quiet(line):
    pass


def short_manifest(folder: Path, first: int = 0, count: int = 8) -> Path:
    """A manifest of a few of the committed calibration utterances, at least 23 s."""
    rows = [json.loads(line) for line in CALIBRATION.read_text().splitlines()[first : first + count]]
    for row in rows:
        row["audio_filepath"] = str(CALIBRATION.parent / row["audio_filepath"])
    path = folder / f"calibration-{first}-{count}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def listen(artifact: Artifact, corpus, lookahead: int, encoder: Path | None = None):
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
