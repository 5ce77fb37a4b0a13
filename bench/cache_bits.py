"""A kv variant whose caches of keys and values hold 16 or 8 bits: its speed, and what of its frames and words is left.

    python bench/cache_bits.py VARIANT_FOLDER --corpus reference/audio/eval.jsonl [--streams 1 8] [--rounds 100]

The graph is rewritten at its ends: it takes and gives f16, by Cast, or u8, by QuantizeLinear with one scale for a cache,
from the largest value in the corpus. A chunk attends to its own keys and values as they are. Frames and tokens are held
to those of kv-fp32 in the same build. Graphs are timed chunk by chunk in turn, on noise, after the caches have filled;
what carries the caches is not. "MB a stream": of keys and values. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from frames_and_tokens import frames_and_tokens
from onnx import TensorProto, helper, numpy_helper

from nemoport.artifact import Artifact
from nemoport.caches_kv import CACHED, KvCaches
from nemoport.graph_file import save_model
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.score import count_all, wer_percent
from nemoport.speech.corpus import read_corpus
from nemoport.tokens import detokenize, read_tokens
from nemoport.variant import instruction_set

NARROWED = CACHED[:2]
ONNX_TYPES = {16: TensorProto.FLOAT16, 8: TensorProto.UINT8}  # onnxruntime on x86 makes of i8 u8, and breaks some graphs so
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
ZERO = 128
WARM_UP_CHUNKS = 12


class Session(OnnxSession):
    """Whose caches are of the graph's types."""

    largest: dict[str, float] | None = None  # where it is a dictionary: of each cache, as far as the audio went

    def initial_state(self, batch, prompts=()):
        state = KvCaches.initial(self.spec.streaming, batch)
        types = {i.name: i.type for i in self._encoder.get_inputs()}
        for name, window in zip(CACHED, state.windows, strict=True):
            dtype = DTYPES[types[f"cache_{name}_0"]]
            window.series.buffer = np.full(window.series.buffer.shape, ZERO if dtype is np.uint8 else 0, dtype)
        return state

    def encode(self, mel, lengths, state):
        frames, lengths, state = super().encode(mel, lengths, state)
        if self.largest is not None:
            for name, window in zip(NARROWED, state.windows, strict=False):
                for i, cache in enumerate(window.view()):
                    key = f"{name}_{i}"
                    self.largest[key] = max(self.largest.get(key, 0.0), float(np.abs(cache).max()))
        return frames, lengths, state


def narrowed(model, bits: int, largest: dict[str, float]):
    """model: onnx.ModelProto, which is changed. largest: of the cache of each layer, such as key_0."""
    graph, before, behind = model.graph, [], []
    ends = {value.name: value for value in (*graph.input, *graph.output)}
    wide = {}  # name of a narrow input or output -> of the f32 tensor beside it
    for key, top in largest.items():
        name, layer = key.split("_")
        taken, given = f"cache_{key}", f"{name}_new_{layer}"
        scale = [f"{key}/scale", f"{key}/zero"]
        if bits == 8:
            values = np.float32(top / 127), np.uint8(ZERO)
            graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for v, n in zip(values, scale, strict=True))
        for end, into, nodes in ((taken, False, before), (given, True, behind)):
            ends[end].type.tensor_type.elem_type = ONNX_TYPES[bits]
            wide[end] = f"{end}/f32"
            source, target = (wide[end], end) if into else (end, wide[end])
            if bits == 16:
                to = TensorProto.FLOAT16 if into else TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [source], [target], to=to))
            else:
                nodes.append(helper.make_node("QuantizeLinear" if into else "DequantizeLinear", [source, *scale], [target]))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [wide.get(name, name) for name in names]
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def timed(sessions: dict[str, Session], lookahead: int, streams: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the graph for each chunk."""
    spec = next(iter(sessions.values())).spec
    size = spec.streaming.window_mel_frames(lookahead, first=False)
    noise = np.random.default_rng(0).normal(-8.0, 4.0, (streams, spec.frontend.n_mels, size)).astype(np.float32)
    fed = {"audio_signal": noise, "length": np.full(streams, size, np.int64)}
    feeds = {}
    for name, session in sessions.items():
        state = session.initial_state(streams)
        for _ in range(WARM_UP_CHUNKS):
            *_, state = session.encode(fed["audio_signal"], fed["length"], state)
        feeds[name] = {**fed, **state.feeds()}
    milliseconds = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            started = time.perf_counter()
            session._encoder.run(None, feeds[name])
            milliseconds[name].append(1000 * (time.perf_counter() - started))
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="utterances; default: all")
    parser.add_argument("--lookahead", type=int, default=6)
    parser.add_argument("--streams", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    artifact = Artifact.open(options.folder)
    corpus = read_corpus(options.corpus, artifact.spec.frontend.sample_rate_hz).utterances[: options.limit]

    def opened(encoder: Path) -> Session:
        return Session(artifact.spec, encoder, artifact.decoder, threads=options.threads)

    wide = Artifact.open(options.folder.parent / "kv-fp32")
    session = Session(wide.spec, wide.encoder, wide.decoder, threads=options.threads)
    wide_frames, wide_tokens = frames_and_tokens(session, wide, corpus, options.lookahead)
    del session
    sessions = {"32": opened(artifact.encoder)}
    sessions["32"].largest = largest = {}
    found = {"32": frames_and_tokens(sessions["32"], artifact, corpus, options.lookahead)}
    sessions["32"].largest = None
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as folder:
        for bits in ONNX_TYPES:
            path = Path(folder) / f"{bits}.onnx"
            save_model(narrowed(onnx.load(artifact.encoder), bits, largest), path, {})
            sessions[str(bits)] = opened(path)
            found[str(bits)] = frames_and_tokens(sessions[str(bits)], artifact, corpus, options.lookahead)
        times = {n: timed(sessions, options.lookahead, n, options.rounds) for n in options.streams}
    spec = artifact.spec.streaming
    values = len(NARROWED) * spec.n_layers * spec.left_context_enc_frames * spec.d_model
    pieces, references = read_tokens(artifact.shared / "tokens.txt"), [utterance.text for utterance in corpus]
    print(f"{artifact.manifest.variant}, {instruction_set()}, {options.threads} threads, lookahead {options.lookahead}, "
          f"{options.rounds} rounds, {len(corpus)} utterances\n")  # fmt: skip
    heads = ["bits", "MB a stream", "dB", "same tokens", "WER %", *(f"ms a chunk, {n} streams (ratio)" for n in times)]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for bits, (frames, tokens) in found.items():
        noise, power = np.square(frames - wide_frames).sum(dtype=np.float64), np.square(wide_frames).sum(dtype=np.float64)
        same = sum(a == b for a, b in zip(tokens, wide_tokens, strict=True))
        wer = wer_percent(count_all(references, [detokenize(pieces, one) for one in tokens]))
        cells = [bits, f"{values * int(bits) / 8e6:.2f}", f"{10 * np.log10(power / noise):.1f}" if noise else "",
                 f"{same} of {len(tokens)}", f"{wer:.2f}"]  # fmt: skip
        for by_bits in times.values():
            ratio = statistics.median(b / a for a, b in zip(by_bits["32"], by_bits[bits], strict=True))
            cells.append(f"{statistics.median(by_bits[bits]):.2f} ({ratio:.3f})")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
