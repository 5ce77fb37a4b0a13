"""What the graphs for OpenVINO are called, and what goes in and out: card 002's names where it has any.

Integers are i32, as its consumers feed and read them. Batch and time are dynamic, so that one encoder serves every
lookahead and the exact first chunk; what always feeds one stream and one window length gets what it always got. An encoder
that keeps its caches as state hears one stream.
"""

from __future__ import annotations

from nemoport.contract import KV, NEMO, PROMPT, KvCaches, NemoCaches
from nemoport.spec import ModelSpec

PREPROCESSOR, ENCODER, DECODER, JOINT = (f"nemotron_{part}" for part in ("preprocessor", "encoder", "decoder", "joint"))
GRAPHS = (PREPROCESSOR, ENCODER, DECODER, JOINT)
VOCABULARY, METADATA = "nemotron_vocab.json", "metadata.json"
RUNTIME = "runtime"  # key of METADATA: what the graphs are compiled with
STATEFUL = "stateful"  # beside the contracts of the ONNX graphs: kv's caches, kept by OpenVINO

F32, I32 = "f32", "i32"
Tensor = tuple[str, tuple[int, ...]]  # element type, dimensions; -1 is a dynamic one
Interface = tuple[dict[str, Tensor], dict[str, Tensor]]  # inputs, outputs

# Names of the ONNX graphs -> those here. What is not among them keeps its name.
RENAMED = {
    PREPROCESSOR: {"length": "audio_length"},
    ENCODER: {
        "audio_signal": "mel",
        "length": "mel_length",
        "cache_last_channel": "cache_channel",
        "cache_last_time": "cache_time",
        "cache_last_channel_len": "cache_len",
        PROMPT: "prompt_id",
        "outputs": "encoded",
        "encoded_lengths": "encoded_length",
        "cache_last_channel_next": "cache_channel_out",
        "cache_last_time_next": "cache_time_out",
        "cache_last_channel_next_len": "cache_len_out",
    },
    DECODER: {
        "targets": "token",
        "target_length": "token_length",
        "input_states_1": "h_in",
        "input_states_2": "c_in",
        "outputs": "decoder_out",
        "output_states_1": "h_out",
        "output_states_2": "c_out",
    },
    JOINT: {"encoder_outputs": "encoder", "decoder_outputs": "decoder", "outputs": "logits"},
}


def interfaces(spec: ModelSpec, contract: str) -> dict[str, Interface]:
    """Graph -> what it takes and gives, by name."""
    decoding, mels, width = spec.decoding, spec.frontend.n_mels, spec.encoder.d_model
    state, prediction, lengths = (
        (F32, (decoding.pred_layers, -1, decoding.pred_hidden)),
        (F32, (-1, decoding.joint_hidden, -1)),
        (I32, (-1,)),
    )
    return {
        PREPROCESSOR: (
            {"audio": (F32, (-1, -1)), "audio_length": lengths},
            {"mel": (F32, (-1, mels, -1)), "mel_length": lengths},
        ),
        ENCODER: _encoder(spec, contract),
        DECODER: (
            {"token": (I32, (-1, -1)), "token_length": lengths, "h_in": state, "c_in": state},
            {"decoder_out": prediction, "h_out": state, "c_out": state},
        ),
        JOINT: (
            {"encoder": (F32, (-1, width, -1)), "decoder": prediction},
            {"logits": (F32, (-1, -1, -1, decoding.n_scores))},
        ),
    }


def states(spec: ModelSpec, contract: str) -> dict[str, Tensor]:
    """Variables of the encoder, by name."""
    return _kv_caches(spec, 1) if contract == STATEFUL else {}


def _kv_caches(spec: ModelSpec, streams: int) -> dict[str, Tensor]:
    *caches, (length, counts) = KvCaches.shapes(spec.streaming, streams).items()
    return {name: (F32, shape) for name, shape in caches} | {length: (I32, counts)}


def _encoder(spec: ModelSpec, contract: str) -> Interface:
    streams = 1 if contract == STATEFUL else -1
    names, lengths, streaming = RENAMED[ENCODER], (I32, (streams,)), spec.streaming
    inputs = {"mel": (F32, (streams, spec.frontend.n_mels, -1)), "mel_length": lengths}
    outputs = {"encoded": (F32, (streams, spec.encoder.d_model, -1)), "encoded_length": lengths}
    if contract == KV:
        caches = _kv_caches(spec, streams)
        inputs |= caches
        added = zip(KvCaches.outputs(streaming), list(caches.values())[:-1], strict=True)
        outputs |= {name: (kind, (-1, *shape[1:])) for name, (kind, shape) in added}
    elif contract == NEMO:
        shapes = NemoCaches.shapes(streaming, 1)
        channel, time, _ = ((F32, (-1, *shape[1:])) for shape in shapes.values())
        inputs |= dict(zip((names[name] for name in shapes), (channel, time, lengths), strict=True))
        cut = (F32, (-1, channel[1][1], -1, channel[1][3]))  # as long as what came in, which the graph's types do not tell
        outputs |= dict(zip((names[name] for name in NemoCaches.outputs(streaming)), (cut, time, lengths), strict=True))
    return inputs | ({names[PROMPT]: lengths} if spec.prompt else {}), outputs
