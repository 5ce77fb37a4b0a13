"""Runs in the peer's environment (genai.py makes it): genai_transcribe.py FOLDER [--rows R] [--language ID] [--padded]

FOLDER is a variant of a package of the layout genai. Reads a path of mono audio a line and writes a JSON object a line: tokens,
text, seconds of processor time. --rows: a folder for the feature rows, N.npy, f32 [chunks, 9 + chunk, bands] of a streaming
model, else [1, bands, frames]. --padded: with the silence around the audio of a streaming model that the card's example has.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
import soundfile


class Transcriber:
    def __init__(self, folder: str, language: str = ""):
        self.model, self.language = og.Model(folder), language
        self.tokenizer = og.Tokenizer(self.model)
        self.settings = json.loads((Path(folder) / "genai_config.json").read_text())["model"]

    def streaming(self, samples: np.ndarray):
        """tokens, rows of each chunk"""
        processor = og.StreamingProcessor(self.model)
        generator = og.Generator(self.model, og.GeneratorParams(self.model))
        if self.language:
            generator.set_runtime_option("lang_id", self.language)
        step = self.settings["chunk_samples"]
        chunks = [processor.process(samples[i : i + step]) for i in range(0, len(samples) - step + 1, step)]
        if len(samples) % step:
            processor.process(samples[len(samples) - len(samples) % step :])
            chunks.append(processor.flush())
        tokens = []
        for chunk in chunks:
            generator.set_inputs(chunk)
            while not generator.is_done():
                generator.generate_next_token()
                tokens += map(int, generator.get_next_tokens())
        return tokens, np.concatenate([chunk["audio_features"].as_numpy() for chunk in chunks])

    def offline(self, path: str):
        """tokens, rows of the recording"""
        processor = self.model.create_multimodal_processor()
        inputs = processor("", audios=og.Audios.open(path))
        rows = inputs["audio_features"].as_numpy().copy()
        generator = og.Generator(self.model, og.GeneratorParams(self.model))
        generator.set_inputs(inputs)
        tokens = []
        while not generator.is_done():
            generator.generate_next_token()
            tokens += map(int, generator.get_next_tokens())
        return [t for t in tokens if t != self.settings["blank_id"]], rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--language", default="", help="slot of a prompted model")
    parser.add_argument("--padded", action="store_true")
    options = parser.parse_args()
    peer = Transcriber(options.folder, options.language)
    for number, line in enumerate(sys.stdin):
        path, started = line.strip(), time.process_time()
        if peer.settings["type"] == "nemotron_speech":
            samples, rate = soundfile.read(path, dtype="float32")
            if options.padded:
                lead = (peer.settings["subsampling_factor"] - 1) * peer.settings["hop_length"]
                samples = np.pad(samples, (lead, rate // 2))
            tokens, rows = peer.streaming(samples)
        else:
            tokens, rows = peer.offline(path)
        seconds = time.process_time() - started
        if options.rows:
            np.save(options.rows / f"{number}.npy", rows)
        text = peer.tokenizer.decode(np.array(tokens, np.int32)) if tokens else ""
        print(json.dumps({"path": path, "tokens": tokens, "text": text, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
