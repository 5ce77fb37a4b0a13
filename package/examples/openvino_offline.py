"""Transcribes one recording with OpenVINO alone: python example.py FOLDER AUDIO"""

import json
import sys
from pathlib import Path

import numpy as np
import openvino
import soundfile


def transcribe(folder, audio):
    """folder: fp32, fp16 or int8. audio: mono, at the model's rate. Returns the token ids, the seconds at which they came out,
    and the text."""
    folder = Path(folder)
    meta = json.loads((folder / "metadata.json").read_text())
    names = ("preprocessor", "encoder", "decoder", "joint")
    core, runtime = openvino.Core(), meta["runtime"]
    preprocessor, encoder, decoder, joint = (core.compile_model(folder / f"nemotron_{n}.xml", "CPU", runtime) for n in names)

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != meta["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {meta['sample_rate']} Hz")
    front = preprocessor({"audio": samples[None], "audio_length": np.array([len(samples)], np.int32)})
    out = encoder({"mel": front["mel"], "mel_length": front["mel_length"]})
    frames, count = out["encoded"], int(out["encoded_length"][0])

    # States start as zeros; the first target is blank.
    states = [np.zeros((meta["decoder_layers"], 1, meta["decoder_hidden"]), np.float32)] * 2
    blank, durations = meta["blank_idx"], meta.get("durations", [0])  # an RNNT model has none: blank goes on, a token stays
    token, tokens, seconds, t, here, predicted = blank, [], [], 0, 0, None
    while t < count:
        if predicted is None:
            one = {"token": np.array([[token]], np.int32), "token_length": np.ones(1, np.int32)}
            predicted = decoder({**one, "h_in": states[0], "c_in": states[1]})
        scores = joint({"encoder": frames[:, :, t : t + 1], "decoder": predicted["decoder_out"]})["logits"].ravel()
        best, behind = int(scores[: blank + 1].argmax()), scores[blank + 1 :]
        step = durations[int(behind.argmax())] if len(behind) else 0
        if best == blank:
            step = max(step, 1)  # the states stay as they were before this call
        else:
            token, states, here = best, [predicted["h_out"], predicted["c_out"]], here + 1
            predicted = None
            tokens.append(token)
            seconds.append(t * meta["frame_seconds"])
        if step or here == meta["max_symbols_per_frame"]:
            t, here = t + max(step, 1), 0

    pieces = json.loads((folder / "nemotron_vocab.json").read_text("utf-8"))
    return tokens, seconds, "".join(pieces[str(t)] for t in tokens).replace("\u2581", " ").strip()


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:])[2])
