"""Transcribes one recording with onnxruntime-genai: python example.py VARIANT AUDIO [LANGUAGE], VARIANT a package's folder"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
import soundfile

TAIL_SECONDS = 0.5  # of silence behind the audio, for what the model says late


def transcribe(folder, audio, language=None):
    """audio: mono, at the model's rate. language: of a model with a prompt, as in config.json."""
    settings = json.loads((Path(folder) / "genai_config.json").read_text())["model"]
    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != settings["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {settings['sample_rate']} Hz")
    lead = (settings["subsampling_factor"] - 1) * settings["hop_length"]  # so that chunks begin where NeMo's do
    samples = np.pad(samples, (lead, int(TAIL_SECONDS * rate)))

    model = og.Model(str(folder))
    processor, generator = og.StreamingProcessor(model), og.Generator(model, og.GeneratorParams(model))
    if language:
        slots = json.loads((Path(folder).parent / "config.json").read_text())["prompt"]["languages"]
        generator.set_runtime_option("lang_id", str(slots[language]))
    tokens = []

    def decode(rows):
        generator.set_inputs(rows)
        while not generator.is_done():
            generator.generate_next_token()
            tokens.extend(generator.get_next_tokens())

    for start in range(0, len(samples), settings["chunk_samples"]):  # as they come; one chunk a call at most
        if rows := processor.process(samples[start : start + settings["chunk_samples"]]):
            decode(rows)
    if rows := processor.flush():
        decode(rows)
    return og.Tokenizer(model).decode(np.array(tokens, np.int32)).strip() if tokens else ""


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:]))
