"""Transcribes one recording with the LiteRT interpreter alone: python example.py PACKAGE VARIANT AUDIO"""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from ai_edge_litert.interpreter import Interpreter


def transcribe(package, variant, audio):
    """audio: mono, at the model's rate, no longer than the longest window. Returns the token ids, the seconds at which they came
    out, and the text."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    dec = config["decoder"]
    signatures = json.loads((package / variant / "litert.json").read_text())["encoder.tflite"]
    encoder, decoder = (Interpreter(str(package / variant / f"{name}.tflite")) for name in ("encoder", "decoder"))
    predict, joint = (decoder.get_signature_runner(name) for name in ("predict", "joint_1"))

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != config["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {config['sample_rate']} Hz")
    mel = log_mel(samples, package, config["spec"]["frontend"])
    sizes = {one["inputs"]["audio_signal"][1][2]: name for name, one in signatures.items()}
    size = min(size for size in sizes if size >= mel.shape[1])
    window = np.pad(mel, ((0, 0), (0, size - mel.shape[1])))[None]
    out = encoder.get_signature_runner(sizes[size])(audio_signal=window, length=np.array([mel.shape[1]], np.int32))
    frames, count = out["outputs"], int(out["encoded_lengths"][0])

    # Decoder states start as zeros; the first target is blank.
    states = {f"input_states_{i}": np.zeros(dec["state_shape"], np.float32) for i in (1, 2)}
    token, tokens, seconds, t, here, predicted = dec["first_target"], [], [], 0, 0, None
    durations = dec.get("durations", [0])  # an RNNT model has none: blank goes on, a token stays
    while t < count:
        if predicted is None:
            predicted = predict(target=np.array([token], np.int32), **states)
        scores = joint(encoder_outputs=frames[:, t : t + 1], prediction=predicted["prediction"])["scores"].ravel()
        best, behind = int(scores[: dec["vocab_size"]].argmax()), scores[dec["vocab_size"] :]
        step = durations[int(behind.argmax())] if len(behind) else 0
        if best == dec["blank_id"]:
            step = max(step, 1)  # the states stay as they were before this call
        else:
            token, states = best, {f"input_states_{i}": predicted[f"output_states_{i}"] for i in (1, 2)}
            here, predicted = here + 1, None
            tokens.append(token)
            seconds.append(t * config["frame_seconds"])
        if step or here == dec["max_symbols_per_frame"]:
            t, here = t + max(step, 1), 0

    pieces = [line.rpartition(" ")[0] for line in (package / "shared" / "tokens.txt").read_text("utf-8").splitlines()]
    return tokens, seconds, "".join(pieces[t] for t in tokens).replace("\u2581", " ").strip()


def log_mel(samples, package, spec):
    """f32 [n] -> f32 [n_mels, n // hop]: frames centred on every hop, zeros outside the signal."""
    n_fft, hop, size = spec["n_fft"], spec["hop_samples"], spec["win_samples"]
    bank = np.fromfile(package / "shared" / "filterbank.bin", np.float32).reshape(spec["n_mels"], -1).astype(np.float64)
    signal = np.append(samples[:1], samples[1:] - np.float32(spec["preemphasis"]) * samples[:-1])
    window = np.pad(np.hanning(size), ((n_fft - size) // 2, n_fft - size - (n_fft - size) // 2))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(signal, n_fft // 2), n_fft)[::hop][: len(samples) // hop]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = np.log(bank @ power.T + spec["log_guard"]).astype(np.float32)
    if spec["normalize"] == "per_feature":
        mel = (mel - mel.mean(1, keepdims=True)) / (mel.std(1, ddof=1, keepdims=True) + 1e-5)
    return mel


if __name__ == "__main__":
    print(transcribe(*sys.argv[1:])[2])
