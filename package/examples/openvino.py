"""Transcribes one recording with OpenVINO alone: python example.py FOLDER AUDIO [LOOKAHEAD [LANGUAGE]]"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import openvino
import soundfile


def transcribe(folder, audio, lookahead=None, language=None):
    """folder: fp32, fp16, int8 or stateful-*. audio: mono, at the model's rate. language: of a model with a prompt, a name of its
    prompt_dictionary. Returns the token ids and the text."""
    folder = Path(folder)
    meta = json.loads((folder / "metadata.json").read_text())
    names = ("preprocessor", "encoder", "decoder", "joint")
    core, runtime = openvino.Core(), meta["runtime"]
    preprocessor, encoder, decoder, joint = (core.compile_model(folder / f"nemotron_{n}.xml", "CPU", runtime) for n in names)
    chunks, past = meta["chunks_by_lookahead"], meta["pre_encode_cache"]
    chunk = chunks[str(max(map(int, chunks)) if lookahead is None else lookahead)]

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != meta["sample_rate"]:
        raise SystemExit(f"{audio}: needs one channel at {meta['sample_rate']} Hz")
    mel = preprocessor({"audio": samples[None], "audio_length": np.array([len(samples)], np.int32)})["mel"][0]

    # Caches and states start as zeros; the first target is blank.
    caches = {}
    if meta["contract"] != "stateful":  # else the infer request keeps them
        caches = {"cache_" + kind: np.zeros(meta[f"cache_{kind}_shape"], np.float32) for kind in ("channel", "time")}
        caches["cache_len"] = np.zeros(1, np.int32)
    prompt = {"prompt_id": np.array([meta["prompt_dictionary"][language]], np.int32)} if "prompt_dictionary" in meta else {}
    states = [np.zeros((meta["decoder_layers"], 1, meta["decoder_hidden"]), np.float32)] * 2
    blank, tokens, at = meta["blank_idx"], [], 0
    events = set(meta.get("events", {"tokens": {}})["tokens"].values())  # ends of utterances, of a model that marks them
    token, padded = blank, np.pad(mel, ((0, 0), (past, 0)))
    while at < mel.shape[1]:
        # The first window holds new mel frames only; a later one begins with the frames before its new ones. The last
        # is filled up with zeros, and mel_length is how much of it counts: the outputs behind `count` are not valid.
        if at == 0:
            size = full = chunk["first_window_mel_frames"]
            window = mel[:, :size]
        else:
            size, full = chunk["new_mel_frames"], chunk["window_mel_frames"]
            window = padded[:, at : at + past + size]
        at, length = at + size, np.array([window.shape[1]], np.int32)
        window = np.pad(window, ((0, 0), (0, full - window.shape[1])))
        out = encoder({"mel": window[None], "mel_length": length, **caches, **prompt})
        frames, count = out["encoded"], int(out["encoded_length"][0])
        caches = {name: out[name + "_out"] for name in caches}
        for t in range(count):
            for _ in range(meta["max_symbols_per_frame"]):
                one = {"token": np.array([[token]], np.int32), "token_length": np.ones(1, np.int32)}
                predicted = decoder({**one, "h_in": states[0], "c_in": states[1]})
                best = int(joint({"encoder": frames[:, :, t : t + 1], "decoder": predicted["decoder_out"]})["logits"].argmax())
                if best == blank:
                    break  # the next frame; the states stay as they were before this call
                token, states = best, [predicted["h_out"], predicted["c_out"]]
                tokens.append(token)
                if token in events:  # the decoder begins anew, with the next frame
                    token, states = blank, [np.zeros_like(state) for state in states]
                    break

    pieces = json.loads((folder / "nemotron_vocab.json").read_text("utf-8"))
    text = "".join(" " if t in events else pieces[str(t)] for t in tokens).replace("\u2581", " ")
    text = " ".join(text.split()) if events else text.strip()
    # A model with a prompt writes the language at the end of a sentence as a tag.
    return tokens, re.sub(r"\s*<[a-z]{2}-[A-Z]{2}>", "", text) if prompt else text


if __name__ == "__main__":
    folder, audio, *rest = sys.argv[1:]
    print(transcribe(folder, audio, *map(int, rest[:1]), *rest[1:])[1])
