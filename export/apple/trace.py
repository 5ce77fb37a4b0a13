"""Shared by the targets of Apple's frameworks: the lookahead of their graphs, the traced programs, metadata.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nemoport.apple.graphs import METADATA, check_served, graph_interfaces
from nemoport.apple.offline import offline_interfaces, offline_rules
from nemoport.errors import UsageError
from nemoport.export.config import default_lookahead
from nemoport.files import write_json
from nemoport.interface import Interface, Tensor
from nemoport.spec import ModelSpec, StreamingSpec

if TYPE_CHECKING:
    import torch

    from nemoport.export.checkpoint import Checkpoint


@dataclass(frozen=True)
class AppleParameters:
    """Parameters of graphs of fixed shapes. dtype: of the encoder's floats; parts: number of graphs that its layers are divided
    among; lookahead: None until `resolved` chooses one for a checkpoint; windows_s: those of an offline model, see
    `Target.windowed`."""

    dtype: str
    parts: int
    lookahead: int | None = None
    windows_s: tuple[int, ...] = ()

    @property
    def chosen_lookahead(self) -> int:
        """The lookahead. Raises UsageError if it is not resolved."""
        if self.lookahead is None:
            raise UsageError("No lookahead was chosen.", expected="parameters as `resolved` returns them", found="none")
        return self.lookahead


NO_STREAMING_CTC = "the graphs of chunks end in the joint's projection"
Parameters = TypeVar("Parameters", bound="AppleParameters")


def resolved(parameters: Parameters, spec: ModelSpec, target: str) -> Parameters:
    """Completes the parameters with the checkpoint's default lookahead, or the only one of its profile. Raises UsageError as
    `check_served`. target: its name, for the error. An offline model has windows instead."""
    if parameters.windows_s:
        return parameters
    check_served(spec, None if spec.streaming is None else default_lookahead(spec), target)
    return replace(parameters, lookahead=default_lookahead(spec))


@dataclass(frozen=True)
class Traced:
    """A traced module. program: with the inputs and outputs of `graph`."""

    program: torch.export.ExportedProgram
    graph: Interface


def trace(
    checkpoint: Checkpoint,
    parameters: AppleParameters,
    change: Callable[[str, torch.nn.Module], None] = lambda name, module: None,
) -> tuple[dict[str, Traced], int]:
    """Traces every graph of a checkpoint: graph name -> program, and the number of channels of the subsampling.

    change(graph name, module): changes a module in place before it is traced. Raises CheckpointError; UsageError for parameters
    without a lookahead.
    """
    import torch

    from nemoport.export.apple.modules import graph_modules
    from nemoport.export.apple.offline import offline_modules

    dtype = getattr(torch, parameters.dtype)
    if parameters.windows_s:
        modules, channels = offline_modules(checkpoint, parameters.windows_s, dtype)
    else:
        modules, channels = graph_modules(checkpoint, parameters.chosen_lookahead, parameters.parts, dtype)
    graphs = interfaces(checkpoint.spec, parameters, channels)
    for name, module in modules.items():
        change(name, module)
    return {name: trace_one(modules.pop(name), graph) for name, graph in graphs.items()}, channels


def interfaces(spec: ModelSpec, parameters: AppleParameters, channels: int) -> dict[str, Interface]:
    """Returns each graph's interface by its name. channels: of the subsampling."""
    if parameters.windows_s:
        return offline_interfaces(spec, parameters.windows_s, parameters.dtype)
    return graph_interfaces(spec, parameters.chosen_lookahead, channels, parameters.parts, parameters.dtype)


def trace_one(module: torch.nn.Module, graph: Interface) -> Traced:
    """Traces a module with inputs of the types and shapes of `graph`, which has no dynamic dimension."""
    import torch

    example = {key: torch.ones(tensor.of(), dtype=getattr(torch, tensor.dtype)) for key, tensor in graph.inputs.items()}
    with torch.no_grad():
        return Traced(torch.export.export(module, args=(), kwargs=example), graph)


def write_metadata(
    folder: Path, checkpoint: Checkpoint, target: str, parameters: AppleParameters, channels: int, files: dict[str, str]
) -> None:
    """Writes metadata.json, which describes the graphs and how to run them, for applications that do not use nemoport.

    channels: of the subsampling; files: graph name -> path within `folder`.
    """
    spec, decoding = checkpoint.spec, checkpoint.spec.decoding
    graphs = interfaces(spec, parameters, channels)
    windows = {"windows_s": list(parameters.windows_s)}
    write_json(
        folder / METADATA,
        {
            "target": target,
            "checkpoint_sha256": checkpoint.sha256,
            **(_chunks(spec, spec.streaming, parameters.chosen_lookahead) if spec.streaming else windows),
            "parts": parameters.parts,
            "subsampling_channels": channels,
            "sample_rate": spec.frontend.sample_rate_hz,
            "blank": decoding.blank_id,
            "vocab": decoding.n_scores,
            "max_symbols_per_frame": decoding.max_symbols_per_frame,
            "graphs": {name: {"file": files[name], **_described(graph)} for name, graph in graphs.items()},
            "rules": _rules(spec, parameters.chosen_lookahead) if spec.streaming else dict(offline_rules(spec)),
        },
    )


def _chunks(spec: ModelSpec, streaming: StreamingSpec, lookahead: int) -> dict:
    within = streaming.attention_lookahead
    return {
        "lookahead": lookahead,
        "chunk_ms": streaming.chunk_ms(lookahead, spec.frontend),
        "frames_per_chunk": lookahead + 1,
        "left_context": streaming.left_context_enc_frames,
        **({} if within is None else {"attention_lookahead": within}),
    }


def file_roles(folder: Path) -> dict[str, str]:
    """Role -> path of every file in `folder`; a package that is a folder counts with each of its files."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path: path for path in paths}


def _described(graph: Interface) -> dict:
    def side(tensors: Mapping[str, Tensor]) -> list[dict]:  # a list, as their order is the module's
        return [{"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for name, tensor in tensors.items()]

    return {"inputs": side(graph.inputs), "outputs": side(graph.outputs)}


def _rules(spec: ModelSpec, lookahead: int) -> dict[str, str]:
    streaming, frames = spec.require_streaming(), lookahead + 1
    first, later = (streaming.chunk_mel_frames(lookahead, first=first) for first in (True, False))
    left = streaming.left_context_enc_frames
    rules = {
        "mel": f"log-mel as config.json's spec.frontend says, not normalised, frames first; the first chunk has {first} frames "
        f"and goes to stream_pre_first, each later one the next {later} and goes to stream_pre",
        "length": "the valid frames of `mel`, zeros behind them; less than all only at the end of a stream. ceil(length / 8) of "
        "the chunk's frames are then to be decoded",
        "caches": "*_next of a chunk are the inputs of the next one; those of the conformer start as zeros, those of stream_pre "
        "come from stream_pre_first",
        "neg_mask": f"0 where a frame may look, -10000 where not. It may at the last min(given so far, {left}) of the {left} "
        f"cached frames, and of the {frames} new ones the first ceil(length / 8)",
        "decode": "greedy: predict with blank and zero states first; joint with each enc_proj frame in turn; at blank go to the "
        "next frame, else emit the token, keep the states and predict with it",
    }
    if streaming.attention_lookahead is not None:
        rules["neg_mask"] += (
            f"; and within the chunk a frame sees its own group of {streaming.attention_lookahead + 1} and those before it, as "
            f"many as fit into {left} frames"
        )
    if spec.prompt:
        rules["one_hot"] = "1 at the slot of the stream's language (languages.json), with every chunk; there is no default"
    return rules
