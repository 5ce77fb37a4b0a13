"""Names and interfaces of the graphs for OpenVINO, the same as in FluidInference's OpenVINO package of Nemotron 3.5
as far as that package has them.

Integers are i32, as the consumers of that package feed and read them. Batch and time are dynamic, so that one encoder serves
every lookahead and the exact first chunk; a consumer that always feeds one stream and one window length needs no change. An
encoder that keeps its caches as state runs one stream; one of an offline model has no caches. A CTC model has one graph in place
of the decoder and the joint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nemoport.artifact import Artifact
from nemoport.cache_layout import KV
from nemoport.caches import PROMPT, NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.interface import F32, I32, Interface, Tensor
from nemoport.spec import CTC, ModelSpec, StreamingSpec

PREPROCESSOR, ENCODER, DECODER, JOINT = (f"nemotron_{part}" for part in ("preprocessor", "encoder", "decoder", "joint"))
CTC_HEAD = "nemotron_ctc"
GRAPHS = (PREPROCESSOR, ENCODER, DECODER, JOINT)  # of a transducer
VOCABULARY, METADATA = "nemotron_vocab.json", "metadata.json"
RUNTIME = "runtime"  # key of METADATA: the properties that the graphs are compiled with
STATEFUL = "stateful"  # a cache layout beside those of the ONNX graphs: kv's caches, kept by OpenVINO

# Names in the ONNX graphs -> names here. Other tensors keep their names.
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
    CTC_HEAD: {"encoder_outputs": "encoder"},
}


def graphs_of(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the names of a model's graphs."""
    return (PREPROCESSOR, ENCODER, CTC_HEAD) if spec.head == CTC else GRAPHS


def interfaces(spec: ModelSpec, layout: str) -> dict[str, Interface]:
    """Returns each graph's interface by its name, with the states that the encoder keeps. layout: NEMO, KV or STATEFUL."""
    decoding, mels, width = spec.decoding, spec.frontend.n_mels, spec.encoder.d_model
    frames = {"encoder": Tensor(F32, (None, width, None))}
    state = Tensor(F32, (decoding.pred_layers, None, decoding.pred_hidden))
    prediction, lengths = Tensor(F32, (None, decoding.joint_hidden, None)), Tensor(I32, (None,))
    graphs = {
        PREPROCESSOR: Interface(
            {"audio": Tensor(F32, (None, None)), "audio_length": lengths},
            {"mel": Tensor(F32, (None, mels, None)), "mel_length": lengths},
        ),
        ENCODER: _encoder(spec, layout),
        DECODER: Interface(
            {"token": Tensor(I32, (None, None)), "token_length": lengths, "h_in": state, "c_in": state},
            {"decoder_out": prediction, "h_out": state, "c_out": state},
        ),
        JOINT: Interface(
            frames | {"decoder": prediction},
            {"logits": Tensor(F32, (None, None, None, decoding.n_scores))},
        ),
        CTC_HEAD: Interface(frames, {"logprobs": Tensor(F32, (None, None, decoding.n_scores))}),
    }
    return {name: graphs[name] for name in graphs_of(spec)}


def _encoder(spec: ModelSpec, layout: str) -> Interface:
    streaming = spec.streaming
    streams = 1 if layout == STATEFUL else None
    names, lengths = RENAMED[ENCODER], Tensor(I32, (streams,))
    inputs = {"mel": Tensor(F32, (streams, spec.frontend.n_mels, None)), "mel_length": lengths}
    outputs = {"encoded": Tensor(F32, (streams, spec.encoder.d_model, None)), "encoded_length": lengths}
    states = {}
    if streaming is None:
        return Interface(inputs, outputs)
    if layout == STATEFUL:
        states = _kv_caches(streaming, 1)
    elif layout == KV:
        caches = _kv_caches(streaming, None)
        inputs |= caches
        added = zip(KvCaches.outputs(streaming), list(caches.values())[:-1], strict=True)
        outputs |= {name: Tensor(tensor.dtype, (None, *tensor.shape[1:])) for name, tensor in added}
    else:
        shapes = NemoCaches.shapes(streaming, 1)
        channel, time, _ = (Tensor(F32, (None, *shape[1:])) for shape in shapes.values())
        inputs |= dict(zip((names[name] for name in shapes), (channel, time, lengths), strict=True))
        # As many frames as the input has; the graph's own types leave the number open.
        cut = Tensor(F32, (None, channel.shape[1], None, channel.shape[3]))
        outputs |= dict(zip((names[name] for name in NemoCaches.outputs(streaming)), (cut, time, lengths), strict=True))
    return Interface(inputs | ({names[PROMPT]: lengths} if spec.prompt else {}), outputs, states)


def _kv_caches(streaming: StreamingSpec, streams: int | None) -> dict[str, Tensor]:
    """Returns the caches, and their length, which is last."""
    *caches, (length, _) = KvCaches.shapes(streaming, 1).items()
    tensors = {name: Tensor(F32, (shape[0], streams, *shape[2:])) for name, shape in caches}
    return tensors | {length: Tensor(I32, (streams,))}


def layout_of(artifact: Artifact) -> str:
    """Returns the cache layout in the artifact's recipe: NEMO, KV or STATEFUL."""
    return artifact.manifest.recipe.parameters["contract"]


def expected(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    """Returns the interface that each graph must have, as `Runtime.expected`."""
    return interfaces(spec, layout_of(artifact))


def found(artifact: Artifact) -> dict[str, Interface]:
    """Reads the interface of each graph on disk, as `Runtime.found`."""
    import openvino

    core = openvino.Core()
    models = {name: core.read_model(artifact.folder / f"{name}.xml") for name in graphs_of(artifact.spec)}
    return {
        name: Interface(_tensors(model.inputs), _tensors(model.outputs), {key: _tensor(port) for key, port in _states(model)})
        for name, model in models.items()
    }


def _states(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields name and port of the variables of an openvino.Model that are read."""
    yield from ((op.get_variable_id(), op.output(0)) for op in model.get_ops() if op.get_type_name() == "ReadValue")


def unwritten_states(artifact: Artifact) -> Iterator[str]:
    """Yields a text for each variable of the encoder that is never written, and for each that is never read."""
    import openvino

    model = openvino.Core().read_model(artifact.folder / f"{ENCODER}.xml")
    read, written = {name for name, _ in _states(model)}, {sink.get_variable_id() for sink in model.get_sinks()}
    yield from (f"{ENCODER}: state {name} is never written" for name in sorted(read - written))
    yield from (f"{ENCODER}: state {name} is never read" for name in sorted(written - read))


def _tensors(ports: Iterable[Any]) -> dict[str, Tensor]:
    return {port.get_any_name(): _tensor(port) for port in ports}


def _tensor(port: Any) -> Tensor:
    shape = tuple(None if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
    return Tensor(port.get_element_type().to_dtype().name, shape)
