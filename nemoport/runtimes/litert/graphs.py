"""The files for LiteRT: `encoder.tflite` with a signature for each window of each lookahead, `decoder.tflite` with one for a
token and one for each number of frames, and `litert.json`, which describes their names, types and shapes. Signatures share
weights. Of an offline model `encoder.tflite` has a signature for each length of a recording, zero-padded to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nemoport.artifact import Artifact
from nemoport.caches import PROMPT
from nemoport.decode import AHEAD_FRAMES
from nemoport.files import read_json
from nemoport.interface import F32, I32, Interface, Tensor, difference
from nemoport.spec import CTC, ModelSpec, StreamingSpec

ENCODER, DECODER, INTERFACE = "encoder.tflite", "decoder.tflite", "litert.json"


def window_name(lookahead: int, first: bool) -> str:
    """Returns the name of the signature that encodes a window."""
    return f"{'first' if first else 'later'}_{lookahead}"


def joint_name(frames: int) -> str:
    """Returns the name of the signature that scores so many frames."""
    return f"joint_{frames}"


def recording_name(seconds: int) -> str:
    """Returns the name of the signature that encodes a recording of up to so many seconds."""
    return f"recording_{seconds}s"


def ctc_name(frames: int) -> str:
    """Returns the name of the signature of a CTC model that scores so many frames."""
    return f"ctc_{frames}"


def joint_frames(spec: ModelSpec, windows_s: Sequence[int] = ()) -> list[int]:
    """Returns the numbers of frames that signatures of the head score, ascending: one, and the chunk of each lookahead, or as
    many as the decoder asks for at once: all of a window, of a CTC model. windows_s: as of `signatures`."""
    if spec.streaming:
        return sorted({1, *(lookahead + 1 for lookahead in spec.streaming.lookaheads)})
    if spec.head == CTC:
        return [spec.require_offline().enc_frames(spec.frontend.mel_frames(seconds)) for seconds in windows_s]
    return [1, AHEAD_FRAMES]


def signatures(spec: ModelSpec, windows_s: Sequence[int] = ()) -> dict[str, dict[str, Interface]]:
    """Returns file -> signature -> its interface. windows_s: seconds of the windows of an offline model."""
    decoding = spec.decoding
    states = {f"input_states_{i}": Tensor(F32, decoding.state_shape(1)) for i in (1, 2)}
    prediction = {"prediction": Tensor(F32, (1, decoding.joint_hidden))}
    predict = Interface(
        {"target": Tensor(I32, (1,)), **states},
        prediction | {name.replace("input", "output"): tensor for name, tensor in states.items()},
    )
    ctc = spec.head == CTC
    heads = {
        ctc_name(frames) if ctc else joint_name(frames): Interface(
            {"encoder_outputs": Tensor(F32, (1, frames, spec.encoder.d_model)), **({} if ctc else prediction)},
            {"scores": Tensor(F32, (1, frames, decoding.n_scores))},
        )
        for frames in joint_frames(spec, windows_s)
    }
    if streaming := spec.streaming:
        windows = [(lookahead, first) for lookahead in streaming.lookaheads for first in (True, False)]
        encoder = {window_name(*window): _window(spec, streaming, *window) for window in windows}
    else:
        encoder = {recording_name(seconds): _recording(spec, seconds) for seconds in windows_s}
    return {ENCODER: encoder, DECODER: heads if ctc else {"predict": predict, **heads}}


def cache_tensors(spec: StreamingSpec) -> dict[str, Tensor]:
    """Returns the caches that a window takes, and their length, which is last."""
    context = Tensor(F32, (spec.n_layers, spec.left_context_enc_frames, spec.d_model))
    return {
        "cache_key": context,
        "cache_value": context,
        "cache_conv": Tensor(F32, (spec.n_layers, spec.conv_cache_frames, spec.d_model)),
        "cache_len": Tensor(I32, (1,)),
    }


def _window(spec: ModelSpec, streaming: StreamingSpec, lookahead: int, first: bool) -> Interface:
    frames, counts = lookahead + 1, Tensor(I32, (1,))
    added = Tensor(F32, (streaming.n_layers, frames, streaming.d_model))
    mel_frames = streaming.window_mel_frames(lookahead, first=first)
    return Interface(
        {
            "audio_signal": Tensor(F32, (1, spec.frontend.n_mels, mel_frames)),
            "length": counts,
            **({} if first else cache_tensors(streaming)),
            **({PROMPT: counts} if spec.prompt else {}),
        },
        {
            "outputs": Tensor(F32, (1, frames, streaming.d_model)),
            "encoded_lengths": counts,
            **{name: added for name in ("key_new", "value_new", "conv_new")},
        },
    )


def _recording(spec: ModelSpec, seconds: int) -> Interface:
    offline, counts, mel_frames = spec.require_offline(), Tensor(I32, (1,)), spec.frontend.mel_frames(seconds)
    return Interface(
        {"audio_signal": Tensor(F32, (1, spec.frontend.n_mels, mel_frames)), "length": counts},
        {"outputs": Tensor(F32, (1, offline.enc_frames(mel_frames), offline.d_model)), "encoded_lengths": counts},
    )


def described(spec: ModelSpec, windows_s: Sequence[int] = ()) -> dict:
    """Returns the content of litert.json: file -> signature -> `inputs` and `outputs`, name -> [type, shape]. windows_s: as of
    `signatures`."""
    sides = ("inputs", "outputs")

    def side(tensors: Mapping[str, Tensor]) -> dict[str, list]:
        return {name: [tensor.dtype, list(tensor.shape)] for name, tensor in tensors.items()}

    return {
        file: {name: {one: side(getattr(interface, one)) for one in sides} for name, interface in every.items()}
        for file, every in signatures(spec, windows_s).items()
    }


def expected(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    """Returns the interface that each graph must have, as `Runtime.expected`."""
    every = signatures(spec, artifact.manifest.recipe.windows_s)
    return {f"{file}: {name}": one for file, named in every.items() for name, one in named.items()}


def found(artifact: Artifact) -> dict[str, Interface]:
    """Reads the interfaces of the files' signatures by the interpreter, as `Runtime.found`."""
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]  # only with the extra litert

    interfaces = {}
    for file in (ENCODER, DECODER):
        interpreter = Interpreter(str(artifact.folder / file))
        for name in interpreter.get_signature_list():
            runner = interpreter.get_signature_runner(name)
            sides = (_tensors(details) for details in (runner.get_input_details(), runner.get_output_details()))
            interfaces[f"{file}: {name}"] = Interface(*sides)
    return interfaces


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Compares litert.json with the spec. See `Runtime.problems`."""
    described_here = described(spec, artifact.manifest.recipe.windows_s)
    yield difference(INTERFACE, described_here, read_json(artifact.folder / INTERFACE, "build the variant again"))


def _tensors(details: dict) -> dict[str, Tensor]:
    return {name: Tensor(detail["dtype"].__name__, tuple(detail["shape"].tolist())) for name, detail in details.items()}
