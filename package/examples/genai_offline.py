"""Transcribes one recording with onnxruntime-genai: python example.py VARIANT AUDIO, VARIANT a package's folder"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og


def transcribe(folder, audio):
    """audio: WAV, FLAC or MP3 of any rate; one recording a call."""
    settings = json.loads((Path(folder) / "genai_config.json").read_text())["model"]
    model = og.Model(str(folder))
    inputs = model.create_multimodal_processor()("", audios=og.Audios.open(str(audio)))
    generator = og.Generator(model, og.GeneratorParams(model))
    generator.set_inputs(inputs)
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.extend(generator.get_next_tokens())
    tokens = [token for token in tokens if token != settings["blank_id"]]  # it ends with a blank
    return og.Tokenizer(model).decode(np.array(tokens, np.int32)).strip() if tokens else ""


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:]))
