"""A worker of ../whole.py in the environment of genai.py: genai_worker.py FOLDER THREADS AUDIO.npy.

FOLDER is one that genai.py has laid out. A chunk is features, encoder and greedy decoding of one stream.
"""

import json
import sys

import numpy as np
import onnxruntime_genai as og
import turns


def main(folder: str, threads: str, audio: str) -> None:
    config = og.Config(folder)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": int(threads)}}}}))
    model = og.Model(config)
    tokenizer = og.Tokenizer(model)

    def begin(lookahead: int, n_streams: int) -> turns.Streams:
        """One stream, at the folder's lookahead."""
        features, generator = og.StreamingProcessor(model), og.Generator(model, og.GeneratorParams(model))
        tokens: list[int] = []

        def step(pieces: list[np.ndarray]) -> None:
            generator.set_inputs(features.process(pieces[0]))
            while not generator.is_done():
                generator.generate_next_token()
                tokens.extend(map(int, generator.get_next_tokens()))

        return turns.Streams(step, lambda: (len(tokens), tokenizer.decode(np.array(tokens, np.int32)) if tokens else ""))

    turns.serve(begin, audio)


if __name__ == "__main__":
    main(*sys.argv[1:])
