"""Transcribes one recording with the LiteRT interpreter alone: python example.py PACKAGE VARIANT AUDIO [LOOKAHEAD [LANGUAGE]]"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
from ai_edge_litert.interpreter import Interpreter


def transcribe(package, variant, audio, lookahead=None, language=None):
    """audio: mono, at the model's rate. language: of a model with a prompt, a name in shared/languages.json. Returns the
    token ids and the text."""
    package = Path(package)
    config, rules = (json.loads((package / name).read_text()) for name in ("config.json", "rules.json"))
    enc, dec = config["encoder"], config["decoder"]
    lookahead = enc["default_lookahead"] if lookahead is None else lookahead
    chunk = enc["chunks_by_lookahead"][str(lookahead)]
    past = enc["pre_encode_cache_mel_frames"]
    encoder, decoder = (Interpreter(str(package / variant / f"{name}.tflite")) for name in ("encoder", "decoder"))
    first, later = (encoder.get_signature_runner(f"{window}_{lookahead}") for window in ("first", "later"))
    predict, joint = (decoder.get_signature_runner(name) for name in ("predict", "joint_1"))

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    mel = log_mel(samples, package, config["spec"]["frontend"])

    # Encoder caches and decoder states start as zeros; the first target is blank.
    cached = {"key": "cache_key", "value": "cache_value", "conv": "cache_conv"}
    caches = {name: np.zeros(rules["cache_shapes"][name], np.float32) for name in cached.values()}
    given, most = 0, caches["cache_key"].shape[1]
    prompt = {}
    if "prompt" in config:
        prompt = {"prompt_index": np.array([config["prompt"]["languages"][language]], np.int32)}
    states = start = {f"input_states_{i}": np.zeros(dec["state_shape"], np.float32) for i in (1, 2)}
    token, tokens, at = dec["first_target"], [], 0
    events = set(config.get("events", {"tokens": {}})["tokens"].values())  # ends of utterances, of a model that marks them
    padded = np.pad(mel, ((0, 0), (past, 0)))
    while at < mel.shape[1]:
        # The first window holds new mel frames only; a later one begins with the frames before its new ones. The last
        # is filled up with zeros, and `length` is how much of it counts: the outputs behind `count` are not valid.
        if at == 0:
            size = full = chunk["first_window_mel_frames"]
            window, run, feeds = mel[:, :size], first, {}
        else:
            size, full = chunk["new_mel_frames"], chunk["window_mel_frames"]
            window, run = padded[:, at : at + past + size], later
            feeds = {**caches, "cache_len": np.array([given], np.int32)}
        at, length = at + size, window.shape[1]
        window = np.pad(window, ((0, 0), (0, full - length)))[None]
        out = run(audio_signal=window, length=np.array([length], np.int32), **feeds, **prompt)
        for kind, name in cached.items():
            caches[name] = np.concatenate([caches[name], out[f"{kind}_new"]], 1)[:, -caches[name].shape[1] :]
        given = min(given + lookahead + 1, most)
        for t in range(int(out["encoded_lengths"][0])):
            for _ in range(dec["max_symbols_per_frame"]):
                predicted = predict(target=np.array([token], np.int32), **states)
                frame = out["outputs"][:, t : t + 1]
                best = int(joint(encoder_outputs=frame, prediction=predicted["prediction"])["scores"].argmax())
                if best == dec["blank_id"]:
                    break  # the next frame; the states stay as they were before this call
                token, states = best, {f"input_states_{i}": predicted[f"output_states_{i}"] for i in (1, 2)}
                tokens.append(token)
                if token in events:  # the decoder begins anew, with the next frame
                    token, states = dec["first_target"], start
                    break

    pieces = [line.rpartition(" ")[0] for line in (package / "shared" / "tokens.txt").read_text("utf-8").splitlines()]
    text = "".join(" " if t in events else pieces[t] for t in tokens).replace("\u2581", " ")
    text = " ".join(text.split()) if events else text.strip()
    # A model with a prompt writes the language at the end of a sentence as a tag.
    return tokens, re.sub(r"\s*<[a-z]{2}-[A-Z]{2}>", "", text) if prompt else text


def log_mel(samples, package, spec):
    """f32 [n] -> f32 [n_mels, n // hop]: frames centred on every hop, zeros outside the signal."""
    n_fft, hop, size = spec["n_fft"], spec["hop_samples"], spec["win_samples"]
    bank = np.fromfile(package / "shared" / "filterbank.bin", np.float32).reshape(spec["n_mels"], -1).astype(np.float64)
    signal = np.append(samples[:1], samples[1:] - np.float32(spec["preemphasis"]) * samples[:-1])
    window = np.pad(np.hanning(size), ((n_fft - size) // 2, n_fft - size - (n_fft - size) // 2))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(signal, n_fft // 2), n_fft)[::hop][: len(samples) // hop]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    return np.log(bank @ power.T + spec["log_guard"]).astype(np.float32)


if __name__ == "__main__":
    package, variant, audio, *rest = sys.argv[1:]
    print(transcribe(package, variant, audio, *map(int, rest[:1]), *rest[1:])[1])
