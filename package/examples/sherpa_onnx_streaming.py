"""Transcribes one recording with sherpa-onnx: python example.py PACKAGE SUFFIX AUDIO [LANGUAGE], SUFFIX such as .int8 or ''"""

import json
import sys
from pathlib import Path

import numpy as np
import sherpa_onnx
import soundfile


def transcribe(package, suffix, audio, language=None):
    """audio: mono, at the model's rate. language: of a model with a prompt."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    graphs = {part: str(package / f"{part}{suffix}.onnx") for part in ("encoder", "decoder", "joiner")}
    recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(tokens=str(package / "tokens.txt"), **graphs)

    stream = recognizer.create_stream()
    if language:
        stream.set_option("language", language)
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
