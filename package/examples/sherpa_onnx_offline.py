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
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        tokens=str(package / "tokens.txt"),
        model_type="nemo_transducer",
        **{part: str(package / f"{part}{suffix}.onnx") for part in ("encoder", "decoder", "joiner")},
    )

    stream = recognizer.create_stream()
    lead = np.zeros(config["sherpa_onnx"]["lead_samples"], np.float32)  # puts its frames where NeMo has them
    stream.accept_waveform(rate, np.concatenate([lead, samples]))
    recognizer.decode_stream(stream)
    return stream.result.text.strip()


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:]))
