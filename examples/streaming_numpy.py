"""Streams a recording through a package with numpy and onnxruntime alone: python streaming_numpy.py PACKAGE VARIANT AUDIO

docs/streaming.md explains it block by block. For packages of streaming models without a language prompt, variants kv-*.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import soundfile


class Mel:
    """Log-mel frames of a stream, each as soon as its samples are there."""

    def __init__(self, config, filterbank):
        front = config["spec"]["frontend"]
        self.hop, self.size, self.emphasis = front["hop_samples"], front["n_fft"], front["preemphasis"]
        self.guard, self.filterbank = front["log_guard"], filterbank
        edge = (self.size - front["win_samples"]) // 2
        self.window = np.pad(np.hanning(front["win_samples"]), edge)  # symmetric, in the middle of the FFT
        self.held = np.zeros(self.size // 2)  # frame 0 is centred on the first sample
        self.last = 0.0

    def feed(self, samples):
        """samples: f32 [n], of any length. Returns f32 [bands, frames]."""
        emphasised = samples - self.emphasis * np.concatenate([[self.last], samples[:-1]])
        self.last = samples[-1] if len(samples) else self.last
        held = np.concatenate([self.held, emphasised])
        count = max((len(held) - self.size) // self.hop + 1, 0)
        self.held = held[count * self.hop :]
        at = np.arange(count)[:, None] * self.hop + np.arange(self.size)
        power = np.abs(np.fft.rfft(held[at] * self.window)) ** 2
        return np.log(self.filterbank @ power.T + self.guard).astype(np.float32)

    def finish(self):
        """Returns the frames that the end of the audio completes. One is left out: NeMo has n // hop frames for n samples."""
        self.last = 0.0
        return self.feed(np.zeros(self.size // 2, np.float32))[:, :-1]


class Stream:
    """One live stream. `feed` takes samples of any length; `tokens` grows."""

    def __init__(self, package, variant, lookahead=None):
        package = Path(package)
        self.config = json.loads((package / "config.json").read_text())
        bands = self.config["spec"]["frontend"]["n_mels"]
        filterbank = np.fromfile(package / "shared" / "filterbank.bin", np.float32).reshape(bands, -1)
        self.mel = Mel(self.config, filterbank)
        self.encoder = ort.InferenceSession(package / variant / "encoder_model.onnx")
        self.decoder = ort.InferenceSession(package / variant / "decoder_model.onnx")
        self.names = [output.name for output in self.encoder.get_outputs()]

        encoder, decoder = self.config["encoder"], self.config["decoder"]
        lookahead = encoder["default_lookahead"] if lookahead is None else lookahead
        self.chunk = encoder["chunks_by_lookahead"][str(lookahead)]
        self.past = encoder["pre_encode_cache_mel_frames"]
        shapes = encoder["kv_cache_shapes"]
        self.caches = {n: np.zeros(s, np.int64 if n == "cache_len" else np.float32) for n, s in shapes.items()}
        self.states = [np.zeros(decoder["state_shape"], np.float32)] * 2
        self.token, self.tokens = decoder["first_target"], []
        self.frames = np.zeros((bands, 0), np.float32)  # mel frames that no window has begun with yet
        self.first = True

    def feed(self, samples):
        self.frames = np.concatenate([self.frames, self.mel.feed(samples)], axis=1)
        while self.frames.shape[1] >= self.wanted():
            self.run(self.wanted())

    def finish(self):
        self.frames = np.concatenate([self.frames, self.mel.finish()], axis=1)
        while self.frames.shape[1] > (0 if self.first else self.past):
            self.run(min(self.wanted(), self.frames.shape[1]))

    def wanted(self):
        return self.chunk["first_window_mel_frames" if self.first else "window_mel_frames"]

    def run(self, count):
        """Encodes a window: the first `count` frames held. The last one of a stream is filled up with zeros."""
        window = np.pad(self.frames[:, :count], ((0, 0), (0, self.wanted() - count)))
        # The next window begins with the last nine frames of this one; before the first there are fewer, and they are zeros.
        kept = self.frames[:, max(count - self.past, 0) :]
        if self.first:
            kept = np.pad(kept, ((0, 0), (max(self.past - count, 0), 0)))
        self.frames, self.first = kept, False
        feeds = {"audio_signal": window[None], "length": np.array([count]), **self.caches}
        out = dict(zip(self.names, self.encoder.run(self.names, feeds), strict=True))
        self.carry_on(out)
        self.decode(out["outputs"][:, :, : out["encoded_lengths"][0]])

    def carry_on(self, out):
        """Puts what the window adds behind each cache, and keeps its last frames."""
        for name in self.caches:
            if name != "cache_len":
                kind, layer = name.split("_")[1:]
                longer = np.concatenate([self.caches[name], out[f"{kind}_new_{layer}"]])
                self.caches[name] = longer[-len(self.caches[name]) :]
        seen = self.caches["cache_len"] + out["outputs"].shape[2]
        self.caches["cache_len"] = np.minimum(seen, len(self.caches["cache_key_0"]))

    def decode(self, frames):
        """Greedy RNNT. frames: f32 [1, width, count], of the encoder."""
        decoder = self.config["decoder"]
        for t in range(frames.shape[2]):
            for _ in range(decoder["max_symbols_per_frame"]):
                logits, *states = self.decoder.run(
                    ["outputs", "output_states_1", "output_states_2"],
                    {
                        "encoder_outputs": frames[:, :, t : t + 1],
                        "targets": np.array([[self.token]], np.int32),
                        "target_length": np.array([1], np.int32),
                        "input_states_1": self.states[0],
                        "input_states_2": self.states[1],
                    },
                )
                best = int(logits.argmax())
                if best == decoder["blank_id"]:
                    break  # the next frame; the states stay as they were
                self.token, self.states = best, states
                self.tokens.append(best)


def text(package, tokens):
    lines = (Path(package) / "shared" / "tokens.txt").read_text("utf-8").splitlines()
    pieces = [line.rpartition(" ")[0] for line in lines]
    return "".join(pieces[token] for token in tokens).replace("\u2581", " ").strip()


if __name__ == "__main__":
    package, variant, audio = sys.argv[1:]
    samples, rate = soundfile.read(audio, dtype="float32")
    stream = Stream(package, variant)
    if rate != stream.config["sample_rate"] or samples.ndim != 1:
        raise SystemExit(f"{audio}: needs one channel at {stream.config['sample_rate']} Hz")
    for at in range(0, len(samples), rate // 10):  # packets of 100 ms, as a microphone gives them
        stream.feed(samples[at : at + rate // 10])
        print("\r" + text(package, stream.tokens), end="", flush=True)
    stream.finish()
    print("\r" + text(package, stream.tokens))
