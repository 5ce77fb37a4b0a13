"""What onnxruntime-genai reads beside its graphs: the tensors of each, genai_config.json, the tokenizer's two files."""

from __future__ import annotations

from typing import Any

from nemoport.config import RuntimeConfig, streaming_encoder
from nemoport.package.boundary import Port, Side
from nemoport.spec import ModelSpec
from nemoport.tokens import WORD_START, Pieces, tag_tokens

# genai's name of a tensor in our graphs -> its key in genai_config.json, where they differ.
KEYS = {
    "length": "input_lengths",
    "encoded_lengths": "output_lengths",
    "lstm_hidden_state_next": "lstm_hidden_state",
    "lstm_cell_state_next": "lstm_cell_state",
}
BLANK = "<blank>"  # which is no piece
TIME_MAJOR = (0, 2, 1)
WINDOW_S, CONTEXT_S = 240, 16  # of a long recording: what is encoded at once, and what around it
MOST_TOKENS = 1_000_000  # of a stream or a recording; genai needs a limit
# genai's name of each tensor, in genai_config.json and in the graphs.
STREAMING_INPUTS: Side = {
    "audio_signal": Port("audio_features", TIME_MAJOR),
    "length": Port("length"),
    "cache_last_channel": Port("cache_last_channel"),
    "cache_last_time": Port("cache_last_time"),
    "cache_last_channel_len": Port("cache_last_channel_len"),
}
PROMPT_INPUT: Side = {"prompt_index": Port("lang_id")}
STREAMING_OUTPUTS: Side = {
    "outputs": Port("encoder_outputs", TIME_MAJOR),
    "encoded_lengths": Port("encoded_lengths"),
    "cache_last_channel_next": Port("cache_last_channel_next"),
    "cache_last_time_next": Port("cache_last_time_next"),
    "cache_last_channel_next_len": Port("cache_last_channel_len_next"),
}
OFFLINE_INPUTS: Side = {"audio_signal": Port("audio_features"), "length": Port("length")}
OFFLINE_OUTPUTS: Side = {"outputs": Port("encoder_outputs"), "encoded_lengths": Port("encoded_lengths")}
STATES_IN: Side = {"input_states_1": Port("lstm_hidden_state"), "input_states_2": Port("lstm_cell_state")}
STATES_OUT: Side = {"output_states_1": Port("lstm_hidden_state_next"), "output_states_2": Port("lstm_cell_state_next")}
TARGETS: Side = {"targets": Port("targets", dtype="int64")}
TARGET_COUNT: Side = {"target_length": Port("targets_length", dtype="int64")}
OUTPUT_COUNT: Side = {"prednet_lengths": Port("outputs_length", dtype="int64")}
PREDICTION: Side = {"outputs": Port("decoder_outputs")}
JOINT_INPUTS: Side = {
    "encoder_outputs": Port("encoder_outputs", TIME_MAJOR),
    "decoder_outputs": Port("decoder_outputs", TIME_MAJOR),
}
JOINT_OUTPUTS: Side = {"outputs": Port("logits")}


def sides(spec: ModelSpec) -> dict[str, tuple[Side, Side]]:
    """Returns inputs and outputs of each graph, by its name without .onnx."""
    joint = (JOINT_INPUTS, JOINT_OUTPUTS)
    if spec.streaming:
        encoder = ({**STREAMING_INPUTS, **(PROMPT_INPUT if spec.prompt else {})}, STREAMING_OUTPUTS)
        return {"encoder": encoder, "decoder": ({**TARGETS, **STATES_IN}, {**PREDICTION, **STATES_OUT}), "joint": joint}
    decoder = ({**TARGETS, **TARGET_COUNT, **STATES_IN}, {**PREDICTION, **OUTPUT_COUNT, **STATES_OUT})
    return {"encoder": (OFFLINE_INPUTS, OFFLINE_OUTPUTS), "decoder": decoder, "joint": joint}


def genai_config(spec: ModelSpec, config: RuntimeConfig) -> dict[str, Any]:
    """Returns genai_config.json, with the keys that onnxruntime-genai knows and no others."""
    frontend, decoding = spec.frontend, spec.decoding
    encoder, decoder, joint = (_section(name, *pair) for name, pair in sides(spec).items())
    model = {
        "type": "nemotron_speech" if spec.streaming else "parakeet_tdt",
        "vocab_size": decoding.vocab_size + 1,
        "blank_id": decoding.blank_id,
        "eos_token_id": [decoding.blank_id],
        "bos_token_id": decoding.blank_id,
        "pad_token_id": decoding.blank_id,
        "context_length": MOST_TOKENS,
        "max_symbols_per_step": decoding.max_symbols_per_frame,
        "sample_rate": frontend.sample_rate_hz,
        "num_mels": frontend.n_mels,
        "fft_size": frontend.n_fft,
        "win_length": frontend.win_samples,
        "hop_length": frontend.hop_samples,
        "preemph": frontend.preemphasis,
        "log_eps": frontend.log_guard,
        "subsampling_factor": spec.encoder.subsampling_factor,
        "encoder": encoder | {"hidden_size": spec.encoder.d_model, "num_hidden_layers": spec.encoder.n_layers},
        "decoder": decoder | {"hidden_size": decoding.pred_hidden, "num_hidden_layers": decoding.pred_layers},
        "joiner": joint,
    }
    return {
        "model": model | (_streaming_keys(spec, config) if spec.streaming else _offline_keys(spec)),
        "search": {"max_length": MOST_TOKENS},
    }


def chunk_samples(spec: ModelSpec, lookahead: int) -> int:
    """Returns the samples of a chunk at a lookahead: what `chunk_samples` of genai_config.json holds."""
    return spec.require_streaming().chunk_mel_frames(lookahead, first=False) * spec.frontend.hop_samples


def _streaming_keys(spec: ModelSpec, config: RuntimeConfig) -> dict[str, Any]:
    streaming = spec.require_streaming()
    return {
        "left_context": streaming.left_context_enc_frames,
        "conv_context": streaming.conv_cache_frames,
        "pre_encode_cache_size": streaming.pre_encode_cache_mel_frames,
        "chunk_samples": chunk_samples(spec, streaming_encoder(config)["default_lookahead"]),
    }


def _offline_keys(spec: ModelSpec) -> dict[str, Any]:
    rate = spec.frontend.sample_rate_hz
    return {
        "tdt_durations": list(spec.decoding.durations),
        "norm_eps": 1e-5,  # NeMo features.CONSTANT
        "chunk_samples": WINDOW_S * rate,
        "left_context_samples": CONTEXT_S * rate,
        "right_context_samples": CONTEXT_S * rate,
    }


def _section(graph: str, inputs: Side, outputs: Side) -> dict[str, Any]:
    """The part of genai_config.json on one graph: key -> tensor of each side."""
    keys = KEYS | ({"decoder_outputs": "outputs"} if graph == "decoder" else {})
    sides = [{keys.get(port.name, port.name): port.name for port in side.values()} for side in (inputs, outputs)]
    return {"filename": f"{graph}.onnx", "inputs": sides[0], "outputs": sides[1]}


def tokenizer_files(pieces: Pieces) -> dict[str, Any]:
    """Returns tokenizer.json and tokenizer_config.json, from which its Tokenizer spells ids: it is not asked to cut texts into
    pieces. Language tags and control symbols are special, which it leaves out."""
    vocabulary = [[piece, -float(i)] for i, piece in enumerate([*pieces, BLANK])]
    spaces = {"type": "Metaspace", "replacement": WORD_START, "prepend_scheme": "always", "split": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [_special(i, pieces[i]) for i in sorted({*tag_tokens(pieces).values(), *pieces.rule.silent})],
        "normalizer": None,
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": True},
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "unk_token": pieces[0]}}


def _special(token: int, piece: str) -> dict[str, Any]:
    return {"id": token, "content": piece, "special": True} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
