"""Transcribes one recording with onnxruntime alone: python example.py PACKAGE VARIANT AUDIO [LOOKAHEAD [LANGUAGE]]"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import soundfile


def transcribe(package, variant, audio, lookahead=None, language=None):
    """audio: mono, at the model's rate. language: of a model with a prompt, a name in shared/languages.json. Returns the
    token ids and the text."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    enc, dec = config["encoder"], config["decoder"]
    frontend = ort.InferenceSession(package / "shared" / "frontend.onnx")
    encoder = ort.InferenceSession(package / variant / "encoder_model.onnx")
    decoder = ort.InferenceSession(package / variant / "decoder_model.onnx")
    lookahead = enc["default_lookahead"] if lookahead is None else lookahead
    chunk = enc["chunks_by_lookahead"][str(lookahead)]
    past = enc["pre_encode_cache_mel_frames"]

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    (mel,) = frontend.run(["mel"], {"audio": samples[None], "length": np.array([len(samples)])})[0]

    # Encoder caches and decoder states start as zeros; the first target is blank.
    shapes = enc["kv_cache_shapes" if variant.startswith("kv-") else "cache_shapes"]
    caches = {n: np.zeros(shape, np.int64 if n.endswith("len") else np.float32) for n, shape in shapes.items()}
    prompt = {"prompt_index": np.array([config["prompt"]["languages"][language]])} if "prompt" in config else {}
    states = [np.zeros(dec["state_shape"], np.float32)] * 2
    token, tokens, at = dec["first_target"], [], 0
    events = set(config.get("events", {"tokens": {}})["tokens"].values())  # ends of utterances, of a model that marks them
    padded = np.pad(mel, ((0, 0), (past, 0)))
    while at < mel.shape[1]:
        # The first window holds new mel frames only; a later one begins with the frames before its new ones. The last
        # is filled up with zeros, and `length` is how much of it counts: the outputs behind `count` are not valid.
        if at == 0:
            size = full = chunk["first_window_mel_frames"]
            window = mel[:, :size]
        else:
            size, full = chunk["new_mel_frames"], chunk["window_mel_frames"]
            window = padded[:, at : at + past + size]
        at, length = at + size, window.shape[1]
        window = np.pad(window, ((0, 0), (0, full - length)))
        names = [output.name for output in encoder.get_outputs()]
        feeds = {"audio_signal": window[None], "length": np.array([length]), **caches, **prompt}
        out = dict(zip(names, encoder.run(names, feeds), strict=True))
        frames, count = out["outputs"], out["encoded_lengths"]
        caches = carried_on(caches, out)
        for t in range(count[0]):
            for _ in range(dec["max_symbols_per_frame"]):
                logits, *moved = decoder.run(
                    ["outputs", "output_states_1", "output_states_2"],
                    {
                        "encoder_outputs": frames[:, :, t : t + 1],
                        "targets": np.array([[token]], np.int32),
                        "target_length": np.array([1], np.int32),
                        "input_states_1": states[0],
                        "input_states_2": states[1],
                    },
                )
                best = int(logits.argmax())
                if best == dec["blank_id"]:
                    break  # the next frame; the states stay as they were before this call
                token, states = best, moved
                tokens.append(token)
                if token in events:  # the decoder begins anew, with the next frame
                    token, states = dec["first_target"], [np.zeros(dec["state_shape"], np.float32)] * 2
                    break

    pieces = [line.rpartition(" ")[0] for line in (package / "shared" / "tokens.txt").read_text("utf-8").splitlines()]
    text = "".join(" " if t in events else pieces[t] for t in tokens).replace("\u2581", " ")
    text = " ".join(text.split()) if events else text.strip()
    # A model with a prompt writes the language at the end of a sentence as a tag.
    return tokens, re.sub(r"\s*<[a-z]{2}-[A-Z]{2}>", "", text) if prompt else text


def carried_on(caches, out):
    """What to feed with the next window. The kv variants give only what stands behind their caches from now on."""
    if "cache_len" not in caches:
        return {name: out[name + "_next"] for name in ("cache_last_channel", "cache_last_time")} | {
            "cache_last_channel_len": out["cache_last_channel_next_len"]
        }
    after = {}
    for name in (n for n in caches if n != "cache_len"):
        kind, layer = name.split("_")[1:]
        after[name] = np.concatenate([caches[name], out[f"{kind}_new_{layer}"]])[-len(caches[name]) :]
    return after | {"cache_len": np.minimum(caches["cache_len"] + out["outputs"].shape[2], len(caches["cache_key_0"]))}


if __name__ == "__main__":
    package, variant, audio, *rest = sys.argv[1:]
    print(transcribe(package, variant, audio, *map(int, rest[:1]), *rest[1:])[1])
