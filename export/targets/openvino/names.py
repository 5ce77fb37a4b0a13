"""What the graphs for OpenVINO are called, and what goes in and out: card 002's names where it has any.

Integers are i32, as its consumers feed and read them. Batch and time are dynamic, so that one encoder serves every
lookahead and the exact first chunk; what always feeds one stream and one window length gets what it always got.
"""

from __future__ import annotations

from nemoport.contract import KV, PROMPT, KvCaches, NemoCaches
from nemoport.spec import ModelSpec

PREPROCESSOR, ENCODER, DECODER, JOINT = (f"nemotron_{part}" for part in ("preprocessor", "encoder", "decoder", "joint"))
GRAPHS = (PREPROCESSOR, ENCODER, DECODER, JOINT)
VOCABULARY, METADATA = "nemotron_vocab.json", "metadata.json"
RUNTIME = "runtime"  # key of METADATA: what the graphs are compiled with

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


def _encoder(spec: ModelSpec, contract: str) -> Interface:
    names, lengths, streaming = RENAMED[ENCODER], (I32, (-1,)), spec.streaming
    inputs = {"mel": (F32, (-1, spec.frontend.n_mels, -1)), "mel_length": lengths}
    outputs = {"encoded": (F32, (-1, spec.encoder.d_model, -1)), "encoded_length": lengths}
    if contract == KV:
        shapes = KvCaches.shapes(streaming, 1)
        *caches, length = shapes
        inputs |= {name: (F32, (shapes[name][0], -1, *shapes[name][2:])) for name in caches} | {length: lengths}
        added = zip(KvCaches.outputs(streaming), caches, strict=True)
        outputs |= {name: (F32, (-1, -1, *shapes[cache][2:])) for name, cache in added}
    else:
        shapes = NemoCaches.shapes(streaming, 1)
        channel, time, _ = ((F32, (-1, *shape[1:])) for shape in shapes.values())
        inputs |= dict(zip((names[name] for name in shapes), (channel, time, lengths), strict=True))
        cut = (F32, (-1, channel[1][1], -1, channel[1][3]))  # as long as what came in, which the graph's types do not tell
        outputs |= dict(zip((names[name] for name in NemoCaches.outputs(streaming)), (cut, time, lengths), strict=True))
    return inputs | ({names[PROMPT]: lengths} if spec.prompt else {}), outputs
