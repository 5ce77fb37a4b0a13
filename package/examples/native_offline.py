"""Transcribes one recording with onnxruntime alone: python example.py PACKAGE VARIANT AUDIO"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import soundfile


def transcribe(package, variant, audio):
    """audio: mono, at the model's rate. Returns the token ids, the seconds at which they came out, and the text."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    dec = config["decoder"]
    frontend = ort.InferenceSession(package / "shared" / "frontend.onnx")
    encoder = ort.InferenceSession(package / variant / "encoder_model.onnx")
    decoder = ort.InferenceSession(package / variant / "decoder_model.onnx")

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    mel, length = frontend.run(["mel", "mel_length"], {"audio": samples[None], "length": np.array([len(samples)])})
    frames, count = encoder.run(["outputs", "encoded_lengths"], {"audio_signal": mel, "length": length})

    # Decoder states start as zeros; the first target is blank.
    states = [np.zeros(dec["state_shape"], np.float32)] * 2
    token, tokens, seconds, t, here = dec["first_target"], [], [], 0, 0
    durations = dec.get("durations", [0])  # an RNNT model has none: blank goes on, a token stays
    while t < count[0]:
        scores, *moved = decoder.run(
            ["outputs", "output_states_1", "output_states_2"],
            {
                "encoder_outputs": frames[:, :, t : t + 1],
                "targets": np.array([[token]], np.int32),
                "target_length": np.array([1], np.int32),
                "input_states_1": states[0],
                "input_states_2": states[1],
            },
        )
        scores = scores.ravel()
        best, behind = int(scores[: dec["vocab_size"]].argmax()), scores[dec["vocab_size"] :]
        step = durations[int(behind.argmax())] if len(behind) else 0
        if best == dec["blank_id"]:
            step = max(step, 1)  # the states stay as they were before this call
        else:
            token, states, here = best, moved, here + 1
            tokens.append(token)
            seconds.append(t * config["frame_seconds"])
        if step or here == dec["max_symbols_per_frame"]:
            t, here = t + max(step, 1), 0

    pieces = [line.rpartition(" ")[0] for line in (package / "shared" / "tokens.txt").read_text("utf-8").splitlines()]
    return tokens, seconds, "".join(pieces[t] for t in tokens).replace("\u2581", " ").strip()


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:])[2])
