"""A streaming model as graphs of fixed shapes, for runtimes that compile them ahead: one stream, one lookahead, as in
mlboydaisuke/Nemotron-3.5-ASR-Streaming-CoreAI.

    stream_pre_first   mel of the first chunk -> embeds, and the last inputs of the three strided convolutions, their caches
    stream_pre         mel of a later chunk and those caches -> embeds, the caches
    stream_conformer   embeds, additive mask, projected keys and values, convolution caches -> frames, the caches; cut in
                       two halves, _a and _b, where a runtime cannot load it whole. The last part also takes the prompt, as a
                       one-hot vector, and contains the joint's projection of the frames
    predict            token, LSTM states -> prediction, states
    joint              prediction and one projected frame -> scores

Both kinds of chunk yield lookahead + 1 frames, so that the conformer is the same for both. Caches go in as they came out; all
start as zeros. `length` counts valid new mel frames, with zeros behind them: that package has no such input, and without it
the frames at the end of a stream, whose last window is not full, would not be NeMo's.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, UsageError
from nemoport.files import read_json
from nemoport.interface import F32, I32, Interface, Tensor
from nemoport.schema import Name, RelativePath, Shape, Text, check, most, whole
from nemoport.spec import MASKED_SCORE, DecodingSpec, ModelSpec, StreamingSpec

PRE_FIRST, PRE, CONFORMER, PREDICT, JOINT = "stream_pre_first", "stream_pre", "stream_conformer", "predict", "joint"
PRE_CACHES = ("pre_cache_0", "pre_cache_1", "pre_cache_2")
CONFORMER_CACHES = ("k_cache", "v_cache", "conv_cache")
NEXT = "_next"  # an output that is an input of the next chunk
METADATA = "metadata.json"  # facts of the graphs for a host, such as their interfaces


def conformer_parts(parts: int) -> list[str]:
    """Returns the names of the graphs that the conformer is cut into."""
    return [CONFORMER] if parts == 1 else [f"{CONFORMER}_{letter}" for letter in string.ascii_lowercase[:parts]]


def layers_of(parts: int, n_layers: int) -> list[range]:
    """Returns the layers of each part; the first parts have one more where the layers do not divide evenly."""
    bounds = [-(-n_layers * part // parts) for part in range(parts + 1)]
    return [range(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def graph_interfaces(spec: ModelSpec, lookahead: int, channels: int, parts: int, dtype: str) -> dict[str, Interface]:
    """Returns each graph's interface by its name.

    channels: of the subsampling's convolutions; parts: that the conformer is cut into; dtype: of the encoder's floats, the
    decoder's are f32. Raises UsageError for an offline model.
    """
    streaming, decoding, n_mels = spec.require_streaming(), spec.decoding, spec.frontend.n_mels
    frames, left = lookahead + 1, streaming.left_context_enc_frames
    heads, d_model = streaming.n_heads, streaming.d_model
    length = Tensor(I32, (1,))
    bands = [n_mels, n_mels // 2 + 1, (n_mels // 2 + 1) // 2 + 1]  # each convolution halves them, and adds one
    cached = [(1, depth, 1, band) for depth, band in zip((1, channels, channels), bands, strict=True)]
    pre_caches = {name: Tensor(dtype, shape) for name, shape in zip(PRE_CACHES, cached, strict=True)}
    embeds = {"embeds": Tensor(dtype, (1, frames, d_model))}
    graphs = {}
    for name, first in ((PRE_FIRST, True), (PRE, False)):
        mel = Tensor(dtype, (1, streaming.chunk_mel_frames(lookahead, first=first), n_mels))
        inputs = {"mel": mel, "length": length} | ({} if first else pre_caches)
        graphs[name] = Interface(inputs, embeds | _next(pre_caches))
    for name, layers in zip(conformer_parts(parts), layers_of(parts, streaming.n_layers), strict=True):
        kept = (len(layers), heads, left, d_model // heads)
        shapes = (kept, kept, (len(layers), d_model, streaming.conv_cache_frames))
        caches = {key: Tensor(dtype, shape) for key, shape in zip(CONFORMER_CACHES, shapes, strict=True)}
        x = Tensor(dtype, (1, frames, d_model))
        inputs = {"x": x, "neg_mask": Tensor(dtype, (1, 1, frames, left + frames))} | caches
        outputs: dict[str, Tensor] = {"y": x}
        if layers.stop == streaming.n_layers:
            outputs = {"encoded": x, "enc_proj": Tensor(dtype, (1, frames, decoding.joint_hidden))}
            inputs |= {"one_hot": Tensor(dtype, (1, spec.prompt.slots))} if spec.prompt else {}
        graphs[name] = Interface(inputs, outputs | _next(caches))
    return graphs | decoder_interfaces(decoding)


def decoder_interfaces(decoding: DecodingSpec) -> dict[str, Interface]:
    """Returns the interfaces of prediction network and joint, which are in f32."""
    state = {name: Tensor(F32, decoding.state_shape(1)) for name in ("h", "c")}
    joined = {"dec_out": Tensor(F32, (1, decoding.joint_hidden))}
    frame = {"enc_frame": Tensor(F32, (1, decoding.joint_hidden))}
    return {
        PREDICT: Interface({"token": Tensor(I32, (1, 1))} | state, joined | _next(state)),
        JOINT: Interface(joined | frame, {"token_logits": Tensor(F32, (1, decoding.n_scores))}),
    }


def negative_mask(streaming: StreamingSpec, frames: int, cached: int, valid: int) -> np.ndarray:
    """Computes the mask that is added to the attention scores, f32 [1, 1, frames, C + frames].

    Of the C cached frames the last `cached` are filled, of the new ones the first `valid` are. Where the attention's lookahead
    is less than the chunk, a frame attends to those of its own group and, of those before it, to as many as fit into the left
    context (NeMo ConformerEncoder._create_masks).
    """
    left = streaming.left_context_enc_frames
    key = np.arange(left + frames)
    attended = ((key >= left - cached) & (key < left + valid))[None, :]
    if streaming.attention_lookahead is not None:
        size = streaming.attention_lookahead + 1
        behind = (key[left:] // size)[:, None] - (key // size)[None, :]
        attended = attended & (behind >= 0) & (behind <= left // size)
    return np.where(np.broadcast_to(attended, (frames, left + frames)), 0.0, MASKED_SCORE).astype(np.float32)[None, None]


def check_served(spec: ModelSpec, lookahead: int | None, target: str) -> None:
    """Raises UsageError for a kind of checkpoint or a lookahead that such graphs cannot be made for."""
    if spec.streaming is None:
        raise UsageError(
            f"The target {target} takes streaming checkpoints.",
            expected="a cache-aware RNNT, with or without a language prompt",
            found=spec.kind,
            todo="export it to onnx, which takes offline models too",
        )
    if lookahead not in spec.streaming.lookaheads:
        raise UsageError(
            f"Lookahead {lookahead} is not one of this checkpoint's.",
            expected=f"one of {', '.join(map(str, spec.streaming.lookaheads))}",
            found=str(lookahead),
            todo="choose one of these; others were never trained",
        )


def _next(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}{NEXT}": tensor for name, tensor in tensors.items()}


class TensorSection(TypedDict):
    name: Name
    dtype: Name
    shape: Shape


class _GraphSection(TypedDict):
    file: RelativePath
    inputs: Annotated[list[TensorSection], most(1000)]
    outputs: Annotated[list[TensorSection], most(1000)]


class Metadata(TypedDict):
    """What is read of metadata.json. rules: sentences for applications, by their names."""

    graphs: Annotated[dict[Name, _GraphSection], most(100)]
    subsampling_channels: Annotated[int, whole(1, 16_384)]
    rules: Annotated[dict[Name, Text], most(100)]


def read_metadata(folder: Path) -> Metadata:
    """Reads metadata.json of a variant. Raises ArtifactError."""
    return check(Metadata, read_json(folder / METADATA, "export again"), str(folder / METADATA), "export again")


def read_interfaces(artifact: Artifact) -> dict[str, Interface]:
    """Reads graph name -> its interface from the artifact's metadata.json. Raises ArtifactError."""
    raw = read_metadata(artifact.folder)["graphs"]

    def tensors(side: list[TensorSection]) -> dict[str, Tensor]:
        return {one["name"]: Tensor(one["dtype"], tuple(one["shape"])) for one in side}

    return {name: Interface(tensors(graph["inputs"]), tensors(graph["outputs"])) for name, graph in raw.items()}


def expected_interfaces(artifact: Artifact, spec: ModelSpec) -> dict[str, Interface]:
    """Returns graph name -> the interface that it must have for `spec` and the artifact's recipe. Raises UsageError."""
    recipe, lookahead = artifact.manifest.recipe, fixed_lookahead(artifact)
    check_served(spec, lookahead, recipe.target)
    channels = read_metadata(artifact.folder)["subsampling_channels"]
    return graph_interfaces(spec, lookahead, channels, recipe.parameters["parts"], recipe.parameters["dtype"])


def fixed_lookahead(artifact: Artifact) -> int:
    """Returns the lookahead that an artifact's graphs are made for. Raises ArtifactError if its recipe has none."""
    lookahead = artifact.manifest.recipe.lookahead
    if not isinstance(lookahead, int):
        raise ArtifactError(
            f"{artifact.folder} does not record its lookahead.",
            expected="a number in its recipe",
            found=repr(lookahead),
            todo="export it again",
        )
    return lookahead
