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
    events = config.get("events", {"tokens": {}})["tokens"].values()  # ends of utterances, of a model that marks them
    lines = (package / "tokens.txt").read_text("utf-8").splitlines()
    ends, texts = [lines[token].rpartition(" ")[0] for token in events], []
    for part in (lead, samples, tail):
        stream.accept_waveform(rate, part)
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            text = recognizer.get_result(stream)
            if any(end in text for end in ends):
                texts.append(text)
                recognizer.reset(stream)  # the decoder; the encoder's caches go on
    stream.input_finished()
    text = " ".join([*texts, recognizer.get_result(stream)])
    for end in ends:
        text = text.replace(end, " ")
    return " ".join(text.split()) if ends else text.strip()


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:]))
