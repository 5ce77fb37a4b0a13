"""What each tensor of a stranger's graph is, by types and shapes first, and by names where these leave a choice.

The names of the keys are NeMo's own: audio_signal, length, cache_last_channel, cache_last_time, cache_last_channel_len, outputs,
encoded_lengths; encoder_outputs, targets, target_length, input_states_1 and _2, decoder_outputs; and prompt_index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nemoport.interface import F16, F32, I32, I64, Interface, Tensor

# What a graph is for.
ENCODER, FUSED, PREDICTOR, JOINER, CTC, SCORER = "encoder", "decoder and joint", "predictor", "joint", "CTC model", "CTC decoder"
FRONT_END, OTHER = "front end", "other"
BANDS = range(40, 257)  # mel bands of published models: 64, 80, 128
SIGNAL, LENGTH, CHANNEL, TIME, FILLED = (
    "audio_signal",
    "length",
    "cache_last_channel",
    "cache_last_time",
    "cache_last_channel_len",
)
PROMPT, MASK, ATTENTION, PRE_CACHE, CONTEXT = "prompt_index", "language_mask", "attention_mask", "pre_cache", "att_context"
FRAMES, COUNTS, SCORES = "outputs", "encoded_lengths", "logprobs"
NEXT = {CHANNEL: "cache_last_channel_next", TIME: "cache_last_time_next", FILLED: "cache_last_channel_next_len"}
KV_PREFIXES = ("cache_key_", "cache_value_", "cache_conv_", "cache_time_", "cache_len")


@dataclass(frozen=True)
class Port:
    """A tensor of a graph. name: the graph's own; axes: the place in the graph's shape of each axis of NeMo's, batch first:
    (0, 2, 1) of a signal that is time-major, (1, 0, 2, 3) of caches that are layer-first."""

    name: str
    tensor: Tensor
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """In the order of NeMo's axes."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)


@dataclass(frozen=True)
class Ports:
    """A graph's role, and NeMo's name -> the graph's own tensor, of inputs and outputs. layout: of an encoder's caches: `nemo`,
    `kv` or ""."""

    role: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    layout: str = ""

    @property
    def streaming(self) -> bool:
        return bool(self.layout)

    @property
    def swapped(self) -> bool:
        """Whether the two caches have each other's names: the one of frames [B, layers, C, d] has the shape of the convolutions'
        [B, layers, d, k - 1], where d is what both have."""
        if not {CHANNEL, TIME} <= set(self.inputs):
            return False
        _, _, frames, width = self.inputs[CHANNEL].shape
        _, _, depth, taps = self.inputs[TIME].shape
        return None not in (frames, width, depth, taps) and width != depth and frames == taps


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if one.dtype in (F32, F16, "float64", "bfloat16")}


def _integers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if one.dtype in (I32, I64)}


def ports_of(interface: Interface) -> Ports:
    """Returns the role of a graph and of its tensors."""
    floats, integers = _floats(interface.inputs), _integers(interface.inputs)
    ranks = {name: len(one.shape) for name, one in floats.items()}
    cached = any(name.startswith("cache") for name in interface.inputs) or 4 in ranks.values()
    threes = [name for name, rank in ranks.items() if rank == 3]
    if not cached and not threes and 2 in ranks.values() and any(len(o.shape) == 3 for o in interface.outputs.values()):
        return Ports(FRONT_END, {}, {})
    tokens = any(word in name for name in integers for word in ("target", "token"))
    if not cached and tokens and len(threes) in (2, 3) and _floats(interface.outputs):
        return _decoder(interface, floats, integers)
    if not cached and not integers and len(floats) == 2 and len(_floats(interface.outputs)) == 1:
        return _joiner(interface)
    if not cached and len(threes) == len(interface.inputs) == 1 and "enc" in threes[0]:
        return _scorer(interface)
    return _encoder(interface, floats, integers) if threes else Ports(OTHER, {}, {})


def _encoder(interface: Interface, floats: dict[str, Tensor], integers: dict[str, Tensor]) -> Ports:
    inputs, outputs = dict(_encoder_inputs(floats, integers)), dict(_encoder_outputs(interface.outputs))
    kv = [name for name in interface.inputs if name.startswith(KV_PREFIXES)]
    if kv and CHANNEL not in inputs:
        own = {name: interface.inputs[name] for name in kv}
        inputs |= {name: Port(name, one, tuple(range(len(one.shape)))) for name, one in own.items()}
        more = {name: one for name, one in interface.outputs.items() if "_new_" in name}
        outputs |= {name: Port(name, one, tuple(range(len(one.shape)))) for name, one in more.items()}
    if SIGNAL not in inputs:
        return Ports(OTHER, {}, {})
    if CHANNEL in inputs and CHANNEL not in outputs:
        outputs |= _next_by_order(inputs, interface.outputs)
    scores = SCORES in outputs
    width = inputs[CHANNEL].shape[-1] if CHANNEL in inputs else None
    if not scores and FRAMES in outputs and width:
        outputs[FRAMES] = _frames(outputs[FRAMES].name, outputs[FRAMES].tensor, width)
    return Ports(CTC if scores else ENCODER, inputs, outputs, "nemo" if CHANNEL in inputs else "kv" if kv else "")


def _encoder_inputs(floats: dict[str, Tensor], integers: dict[str, Tensor]) -> Iterator[tuple[str, Port]]:
    signal = next((name for name, one in floats.items() if len(one.shape) == 3 and "cache" not in name), None)
    for name, one in floats.items():
        rank = len(one.shape)
        if name == signal:
            yield SIGNAL, Port(name, one, (0, 2, 1) if _time_major(name, one) else (0, 1, 2))
        elif rank == 3 and "pre_cache" in name:
            yield PRE_CACHE, Port(name, one, (0, 1, 2))
        elif rank == 2 and ("mask" in name or "lang" in name or "prompt" in name):
            yield MASK, Port(name, one, (0, 1))
        elif rank == 4 and not name.startswith(KV_PREFIXES[:3]):
            yield TIME if "time" in name or "conv" in name else CHANNEL, Port(name, one, _cache_axes(one))
    for name, one in integers.items():
        if "cache" in name and "len" in name:
            yield FILLED, Port(name, one, tuple(range(len(one.shape))))
        elif "prompt" in name or "lang" in name:
            yield PROMPT, Port(name, one, tuple(range(len(one.shape))))
        elif "mask" in name:
            yield ATTENTION, Port(name, one, (0, 1))
        elif "context" in name:
            yield CONTEXT, Port(name, one, (0,))
        elif "len" in name:
            yield LENGTH, Port(name, one, tuple(range(len(one.shape))))


def _encoder_outputs(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Port]]:
    frames = next((name for name, one in _floats(tensors).items() if len(one.shape) == 3 and "cache" not in name), None)
    for name, one in tensors.items():
        rank = len(one.shape)
        if name == frames:
            scores = "log" in name
            yield SCORES if scores else FRAMES, Port(name, one, (0, 1, 2)) if scores else _frames(name, one, None)
        elif "cache" in name and "_new_" not in name:
            key = FILLED if "len" in name else TIME if "time" in name or "conv" in name else CHANNEL if rank == 4 else ""
            if key:
                yield key, Port(name, one, _cache_axes(one) if rank == 4 else tuple(range(rank)))
        elif one.dtype in (I32, I64) and "len" in name:
            yield COUNTS, Port(name, one, tuple(range(rank)))


def _next_by_order(inputs: Mapping[str, Port], outputs: Mapping[str, Tensor]) -> dict[str, Port]:
    """The caches that come back, where their names show nothing: in the order of the inputs."""
    fours = [(name, one) for name, one in outputs.items() if len(one.shape) == 4]
    keys = [key for key in inputs if key in (CHANNEL, TIME)]
    return {key: Port(name, one, _cache_axes(one)) for key, (name, one) in zip(keys, fours, strict=False)}


def _time_major(name: str, tensor: Tensor) -> bool:
    _, second, third = tensor.shape
    if (second in BANDS) == (third in BANDS):  # neither shows, or both
        return name in ("audio_features", "input_features")
    return third in BANDS


def _frames(name: str, tensor: Tensor, width: int | None) -> Port:
    """Frames [B, d, T], or [B, T, d]: the width is the static one, or the one that the caches have."""
    _, second, third = tensor.shape
    free = (None, 1)  # an axis of time
    last = third == width if width and (second == width) != (third == width) else second in free and third not in free
    return Port(name, tensor, (0, 2, 1) if last else (0, 1, 2))


def _cache_axes(tensor: Tensor) -> tuple[int, ...]:
    """Batch first, unless the second axis is the batch: the one that is dynamic or 1, where the first is another."""
    first, second, *_ = tensor.shape
    layer_first = (second is None and first is not None) or (second == 1 and first not in (None, 1))
    return (1, 0, 2, 3) if layer_first else (0, 1, 2, 3)


def _decoder(interface: Interface, floats: dict[str, Tensor], integers: dict[str, Tensor]) -> Ports:
    threes = {name: one for name, one in floats.items() if len(one.shape) == 3}
    frames = next((name for name in threes if "enc" in name), next(iter(threes))) if len(threes) == 3 else None
    inputs, states = {}, [name for name in threes if name != frames]
    if frames:
        inputs["encoder_outputs"] = _frames(frames, threes[frames], None)
    for key, name in zip(("input_states_1", "input_states_2"), states, strict=False):
        inputs[key] = Port(name, threes[name], (0, 1, 2))
    for name, one in integers.items():
        key = "target_length" if "len" in name else "targets"
        inputs.setdefault(key, Port(name, one, tuple(range(len(one.shape)))))
    made, *others = _floats(interface.outputs).items()
    outputs = {"outputs": Port(*made, tuple(range(len(made[1].shape))))}
    if not frames and len(made[1].shape) == 3:
        outputs["outputs"] = _frames(*made, None)
    for key, (name, one) in zip(("output_states_1", "output_states_2"), others, strict=False):
        outputs[key] = Port(name, one, (0, 1, 2))
    return Ports(FUSED if frames else PREDICTOR, inputs, outputs)


def _joiner(interface: Interface) -> Ports:
    names = list(interface.inputs)
    encoder = next((name for name in names if "enc" in name), names[0])
    other = next(name for name in names if name != encoder)
    keys = {"encoder_outputs": encoder, "decoder_outputs": other}
    inputs = {
        key: _frames(name, one, None) if len(one.shape) == 3 else Port(name, one, tuple(range(len(one.shape))))
        for key, name in keys.items()
        for one in [interface.inputs[name]]
    }
    ((name, one),) = _floats(interface.outputs).items()
    return Ports(JOINER, inputs, {"outputs": Port(name, one, tuple(range(len(one.shape))))})


def _scorer(interface: Interface) -> Ports:
    ((name, one),) = interface.inputs.items()
    ((made, other), *_) = interface.outputs.items()
    return Ports(
        SCORER, {"encoder_outputs": _frames(name, one, None)}, {SCORES: Port(made, other, tuple(range(len(other.shape))))}
    )
