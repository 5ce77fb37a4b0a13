"""Transcribes one recording with onnxruntime alone, in chunks: python example.py PACKAGE VARIANT AUDIO [LOOKAHEAD]"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import soundfile


def transcribe(package, variant, audio, lookahead=None):
    """audio: mono, at the model's rate. Returns the token ids and the text."""
    package = Path(package)
    config = json.loads((package / "config.json").read_text())
    enc = config["encoder"]
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

    shapes = enc["kv_cache_shapes" if variant.startswith("kv-") else "cache_shapes"]
    caches = {n: np.zeros(shape, np.int64 if n.endswith("len") else np.float32) for n, shape in shapes.items()}
    blank = before = config["ctc"]["blank_id"]
    names = [output.name for output in encoder.get_outputs()]
    padded = np.pad(mel, ((0, 0), (past, 0)))
    tokens, at = [], 0
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
        feeds = {"audio_signal": window[None], "length": np.array([length]), **caches}
        out = dict(zip(names, encoder.run(names, feeds), strict=True))
        caches = carried_on(caches, out)
        (scores,) = decoder.run(["logprobs"], {"encoder_outputs": out["outputs"]})
        for best in scores[0, : out["encoded_lengths"][0]].argmax(-1):
            if best not in (blank, before):  # equal tokens on consecutive frames are one, also across two chunks
                tokens.append(int(best))
            before = best

    pieces = [line.rpartition(" ")[0] for line in (package / "shared" / "tokens.txt").read_text("utf-8").splitlines()]
    return tokens, "".join(pieces[t] for t in tokens).replace("\u2581", " ").strip()


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
    print(transcribe(package, variant, audio, *map(int, rest))[1])
