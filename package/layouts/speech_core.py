"""The layout of soniqo's speech-core (C++) and its SDKs: cache-aware RNNT models with a language prompt.

<variant>/encoder.onnx, .onnx.data   mel cache as an input of its own, one-hot languages, i32 lengths, caches layer first
<variant>/decoder.onnx, joint.onnx   prediction network (i64 token), joint
<variant>/vocab.json                 id -> piece; the number of pieces is the blank
<variant>/languages.json             slots, slot of `auto`, name -> slot
<variant>/config.json                sizes, for its `Config`
config.json                          nemoport's own

Its class for models without a prompt has no preemphasis and computes mel rows window by window, so those are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import Artifact
from nemoport.cache_layout import NEMO
from nemoport.config import read_config
from nemoport.export.split import split_decoder
from nemoport.files import write_json
from nemoport.package.adapted import AdaptedGraph, AdaptedSession
from nemoport.package.boundary import Port, Side, compute_input, rewire, write_edited
from nemoport.package.layout import USUAL_FRONT_END, CardFacts, FrontEnds, Layout, front_end_problems, piece_problems
from nemoport.package.refusal import NO_PIECES, USUAL, refuse, variant_problems
from nemoport.prompt import AUTO
from nemoport.session import Session
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, read_tokens

TIME_MAJOR, LAYER_FIRST, ONE = (0, 2, 1), (1, 0, 2, 3), {"batch": 1}
WINDOW, WINDOW_LENGTH, SLOT = "window", "window_length", "slot"  # which `_join` computes from its inputs
INPUTS: Side = {
    "audio_signal": Port(WINDOW),
    "length": Port(WINDOW_LENGTH),
    "prompt_index": Port(SLOT),
    "cache_last_channel": Port("cache_last_channel", LAYER_FIRST),
    "cache_last_time": Port("cache_last_time", LAYER_FIRST),
    "cache_last_channel_len": Port("cache_last_channel_len", dtype="int32"),
}
OUTPUTS: Side = {
    "outputs": Port("encoded_output", TIME_MAJOR),
    "encoded_lengths": Port("encoded_length", dtype="int32"),
    "cache_last_channel_next": Port("new_cache_last_channel", LAYER_FIRST),
    "cache_last_time_next": Port("new_cache_last_time", LAYER_FIRST),
    "cache_last_channel_next_len": Port("new_cache_last_channel_len", dtype="int32"),
}
DECODER: Side = {"targets": Port("token", dtype="int64"), "input_states_1": Port("h_in"), "input_states_2": Port("c_in")}
DECODED: Side = {
    "outputs": Port("decoder_output", TIME_MAJOR),
    "output_states_1": Port("h"),
    "output_states_2": Port("c"),
}
JOINT: Side = {
    "encoder_outputs": Port("encoder_output", TIME_MAJOR),
    "decoder_outputs": Port("decoder_output", TIME_MAJOR),
}
JOINED: Side = {"outputs": Port("logits")}
LOOKAHEAD = 3  # 32 mel frames a window

FILES = {
    "<variant>/encoder.onnx`, `.onnx.data": "encoder: graph, weights",
    "<variant>/decoder.onnx`, `joint.onnx": "prediction network, joint",
    "<variant>/vocab.json`, `languages.json": "tokens by id; prompt slots by name",
    "<variant>/config.json": "sizes, for its `Config`",
    "config.json": "every parameter and rule below, machine-readable",
    "manifest.json": "gate results; size and sha256 of every file",
}
# Of its NemotronMultilingualStt.
FRONT_ENDS: FrontEnds = {**USUAL_FRONT_END, "n_mels": (80, 128), "normalize": ("NA",)}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns encoder, decoder and joint of a variant in a package of this layout."""
    return tuple(folder / variant / f"{name}.onnx" for name in ("encoder", "decoder", "joint"))


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes a folder for each variant and config.json. Raises UsageError for what speech-core cannot run."""
    import onnx

    config = read_config(build)
    spec = ModelSpec.from_dict(config["spec"])
    pieces = read_tokens(build / "shared" / "tokens.txt")
    _check(spec, variants, pieces)
    for variant in variants:
        artifact = Artifact.open(build / variant)
        (folder / variant).mkdir()
        encoder, decoder, joint = graphs(folder, variant)
        write_edited(artifact.encoder, encoder, lambda model: _edit(model, spec), beside=True)
        split = split_decoder(onnx.load(artifact.decoder))
        rewire(split.predictor, DECODER, DECODED, ONE)
        onnx.save(split.predictor, decoder)
        rewire(split.joiner, JOINT, JOINED, ONE)
        onnx.save(split.joiner, joint)
        write_json(folder / variant / "vocab.json", {str(i): piece for i, piece in enumerate(pieces)})
        write_json(folder / variant / "languages.json", languages(spec))
        write_json(folder / variant / "config.json", sizes(spec))
    write_json(folder / "config.json", config)


def _edit(model: Any, spec: ModelSpec) -> None:
    """Gives an encoder the inputs and outputs of speech-core. The window of our graph is its mel cache and its new frames."""
    from onnx import TensorProto, helper, numpy_helper

    cache, bands = spec.require_streaming().pre_encode_cache_mel_frames, spec.frontend.n_mels
    rewire(model, INPUTS, OUTPUTS, ONE)
    graph, node, value = model.graph, helper.make_node, helper.make_tensor_value_info
    constants = {"pre_cache/frames": [cache], "pre_cache/start": [-cache], "pre_cache/end": [2**31 - 1], "pre_cache/axis": [2]}
    graph.initializer.extend(numpy_helper.from_array(np.array(values, np.int64), name) for name, values in constants.items())
    compute_input(
        model,
        WINDOW,
        [node("Concat", ["pre_cache", "audio_signal"], [WINDOW], axis=2)],
        [value("audio_signal", TensorProto.FLOAT, [1, bands, "mel_frames"])],
    )
    compute_input(
        model,
        WINDOW_LENGTH,
        [
            node("Cast", ["audio_length"], ["audio_length/wide"], to=TensorProto.INT64),
            node("Add", ["audio_length/wide", "pre_cache/frames"], [WINDOW_LENGTH]),
        ],
        [value("audio_length", TensorProto.INT32, [1]), value("pre_cache", TensorProto.FLOAT, [1, bands, cache])],
    )
    mask = value("language_mask", TensorProto.FLOAT, [1, spec.require_prompt().slots])
    compute_input(model, SLOT, [node("ArgMax", ["language_mask"], [SLOT], axis=1, keepdims=0)], [mask])
    last = ["pre_cache/start", "pre_cache/end", "pre_cache/axis"]
    graph.node.append(node("Slice", [WINDOW, *last], ["new_pre_cache"]))
    graph.output.insert(2, value("new_pre_cache", TensorProto.FLOAT, [1, bands, cache]))


def open_variant(folder: Path, variant: str, spec: ModelSpec) -> Session:
    """Opens a variant of such a package in nemoport's own runtime."""
    encoder, decoder, joint = graphs(folder, variant)
    cache, slots = spec.require_streaming().pre_encode_cache_mel_frames, spec.require_prompt().slots

    def feed(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rest = {name: values for name, values in feeds.items() if name not in (WINDOW, WINDOW_LENGTH, SLOT)}
        return rest | {
            "pre_cache": np.ascontiguousarray(feeds[WINDOW][:, :, :cache]),
            "audio_signal": np.ascontiguousarray(feeds[WINDOW][:, :, cache:]),
            "audio_length": (feeds[WINDOW_LENGTH] - cache).astype(np.int32),
            "language_mask": np.eye(slots, dtype=np.float32)[feeds[SLOT]],
        }

    return AdaptedSession(
        spec,
        AdaptedGraph(encoder, INPUTS, OUTPUTS, feed),
        AdaptedGraph(decoder, DECODER, DECODED),
        AdaptedGraph(joint, JOINT, JOINED),
    )


def languages(spec: ModelSpec) -> dict[str, Any]:
    """Returns languages.json."""
    prompt = spec.require_prompt()
    return {"numPrompts": prompt.slots, "autoSlot": prompt.languages.get(AUTO, -1), "promptDictionary": prompt.languages}


def sizes(spec: ModelSpec) -> dict[str, Any]:
    """Returns config.json of a variant: the fields of `NemotronMultilingualStt::Config`."""
    streaming, frontend, decoding = spec.require_streaming(), spec.frontend, spec.decoding
    return {
        "sample_rate": frontend.sample_rate_hz,
        "mel_bins": frontend.n_mels,
        "n_fft": frontend.n_fft,
        "hop_length": frontend.hop_samples,
        "win_length": frontend.win_samples,
        "pre_emphasis": frontend.preemphasis,
        "mel_frames": streaming.chunk_mel_frames(LOOKAHEAD, first=False),
        "pre_cache_size": streaming.pre_encode_cache_mel_frames,
        "encoder_layers": streaming.n_layers,
        "encoder_hidden": streaming.d_model,
        "att_left_context": streaming.left_context_enc_frames,
        "conv_cache_size": streaming.conv_cache_frames,
        "decoder_layers": decoding.pred_layers,
        "decoder_hidden": decoding.pred_hidden,
        "num_prompts": spec.require_prompt().slots,
        "vocab_size": decoding.vocab_size,
        "blank_id": decoding.blank_id,
        "max_symbols": decoding.max_symbols_per_frame,
    }


# Its defaults, of nvidia/nemotron-3.5-asr-streaming-0.6b.
DEFAULTS = dict(
    mel_bins=128, pre_cache_size=9, encoder_layers=24, encoder_hidden=1024, att_left_context=56, conv_cache_size=8,
    decoder_layers=2, decoder_hidden=640, max_symbols=10,
)  # fmt: skip


def problems(spec: ModelSpec, pieces: Pieces) -> list[str]:
    """Returns each thing of a model that speech-core cannot run."""
    if not spec.streaming or spec.head != "rnnt" or not spec.prompt:
        return [f"a model of the kind {spec.kind}: it computes NeMo's front end for cache-aware RNNT models with a prompt only"]
    found = front_end_problems(spec, FRONT_ENDS)
    if LOOKAHEAD not in spec.streaming.lookaheads:
        found.append(f"lookaheads {', '.join(map(str, spec.streaming.lookaheads))}, where it has {LOOKAHEAD}")
    if spec.decoding.joint_hidden != spec.decoding.pred_hidden:
        found.append("a joint that is not as wide as the prediction network, which it takes to be the same")
    return found + piece_problems(pieces, "", spaces_inside=False)


def _check(spec: ModelSpec, variants: Sequence[str], pieces: Pieces = NO_PIECES) -> None:
    found = variant_problems(variants) + problems(spec, pieces)
    refuse("speech-core", f"a cache-aware RNNT model with a language prompt and lookahead {LOOKAHEAD}, {USUAL}", found)


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    variant, found = next(iter(facts.artifacts)), sizes(facts.spec)
    others = [f"config.{name} = {found[name]};" for name, value in DEFAULTS.items() if found[name] != value]
    lead = (facts.spec.encoder.subsampling_factor - 1) * facts.spec.frontend.hop_samples
    settings = "\n".join(["speech_core::NemotronMultilingualStt::Config config;", *others])
    return f"""With speech-core, from the folder of a variant:

```cpp
{settings}
speech_core::NemotronMultilingualStt stt(
    "{variant}/encoder.onnx", "{variant}/decoder.onnx", "{variant}/joint.onnx",
    "{variant}/vocab.json", "{variant}/languages.json", config);
stt.set_language("auto");  // else en-US; a name that languages.json lacks becomes auto, and the call returns false
auto text = stt.transcribe(samples, count, 16000).text;
```

- Windows of 320 ms (lookahead {LOOKAHEAD}). The rest of the audio is padded with zeros to a window, and all frames are decoded.
- Feed {lead} samples of silence before the audio: its first window is as long as the others, where NeMo's is so much
  shorter. Feed half a second behind it, for what the model says late.
- It prints tags such as `<en-US>` as text: leave them out.
- The graphs were run as speech-core feeds them, by nemoport, in onnxruntime; speech-core itself was not run."""


LAYOUT = Layout(
    "speech-core",
    FILES,
    lay_out,
    graphs,
    usage,
    cache_layouts=(NEMO,),
    front_ends=lambda spec: FRONT_ENDS,
    problems=problems,
    open_variant=open_variant,
)
