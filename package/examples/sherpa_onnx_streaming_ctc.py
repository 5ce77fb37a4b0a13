"""Transcribes one recording with sherpa-onnx: python example.py PACKAGE SUFFIX AUDIO, SUFFIX such as .int8 or ''"""

import json
import sys
from pathlib import Path

import numpy as np
import sherpa_onnx
import soundfile


def transcribe(package, suffix, audio):
    """audio: mono, at the model's rate."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    recognizer = sherpa_onnx.OnlineRecognizer.from_nemo_ctc(
        tokens=str(package / "tokens.txt"),
        model=str(package / f"model{suffix}.onnx"),
        feature_dim=config["spec"]["frontend"]["n_mels"],
    )

    stream = recognizer.create_stream()
    silence = config["sherpa_onnx"]  # without it the first 160 ms and the last words are lost
    lead, tail = (np.zeros(silence[name], np.float32) for name in ("lead_samples", "tail_samples"))
    for part in (lead, samples, tail):
        stream.accept_waveform(rate, part)
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
    stream.input_finished()
    return recognizer.get_result(stream).strip()


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:]))
