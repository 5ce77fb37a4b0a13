"""Transcribes one recording with onnxruntime alone: python example.py PACKAGE VARIANT AUDIO"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import soundfile


def transcribe(package, variant, audio):
    """audio: mono, at the model's rate. Returns the token ids, the seconds at which each begins, and the text."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    frontend = ort.InferenceSession(package / "shared" / "frontend.onnx")
    encoder = ort.InferenceSession(package / variant / "encoder_model.onnx")
    decoder = ort.InferenceSession(package / variant / "decoder_model.onnx")

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    mel, length = frontend.run(["mel", "mel_length"], {"audio": samples[None], "length": np.array([len(samples)])})
    frames, count = encoder.run(["outputs", "encoded_lengths"], {"audio_signal": mel, "length": length})
    (scores,) = decoder.run(["logprobs"], {"encoder_outputs": frames})

    blank = before = config["ctc"]["blank_id"]
    tokens, seconds = [], []
    for t, best in enumerate(scores[0, : count[0]].argmax(-1)):
        if best not in (blank, before):  # equal tokens on consecutive frames are one
            tokens.append(int(best))
            seconds.append(t * config["frame_seconds"])
        before = best

    pieces = [line.rpartition(" ")[0] for line in (package / "shared" / "tokens.txt").read_text("utf-8").splitlines()]
    return tokens, seconds, "".join(pieces[t] for t in tokens).replace("\u2581", " ").strip()


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:])[2])
