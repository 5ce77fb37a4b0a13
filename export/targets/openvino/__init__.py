"""OpenVINO IR: front end, encoder, decoder and joint as .xml and .bin, by card 002's names, beside vocabulary and metadata.

Streaming checkpoints. What the graphs are to be compiled with stands in metadata.json and, where OpenVINO reads it from
there, in the graph itself: what is run by default is what the gates ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.artifact import Artifact
from nemoport.contract import KV, NEMO
from nemoport.errors import UsageError
from nemoport.export.targets.openvino.names import (
    ENCODER,
    GRAPHS,
    METADATA,
    PREPROCESSOR,
    STATEFUL,
    VOCABULARY,
    interfaces,
    states,
)
from nemoport.files import read_json
from nemoport.spec import ModelSpec
from nemoport.tokens import read_tokens
from nemoport.variant import instruction_set

if TYPE_CHECKING:
    from nemoport.calibration.cache import Progress
    from nemoport.export.targets import Source

EXTRA, PACKAGES = "openvino", ("openvino", "nncf")
NEEDS_CALIBRATION: tuple[str, ...] = ()
FLOATS = "f32"  # else OpenVINO takes bf16 where a processor has it
GROUP = "DYNAMIC_QUANTIZATION_GROUP_SIZE"


@dataclass(frozen=True)
class Parameters:
    """contract: of the ONNX graphs, or STATEFUL. weights: of the encoder's layers, fp32, fp16 or int8; the rest is in fp16
    where they are not fp32. group: so many channels of an activation are rounded to 8 bits together as the graph runs, where
    the processor can; 0: none are."""

    contract: str = NEMO
    weights: str = "fp32"
    group: int = 0

    @property
    def converted_from(self) -> str:
        """The contract of the ONNX graphs."""
        return KV if self.contract == STATEFUL else self.contract

    @property
    def runtime(self) -> dict:
        """OpenVINO's properties."""
        return {"INFERENCE_PRECISION_HINT": FLOATS, GROUP: self.group}


PRECISIONS = {
    "fp32": Parameters(),
    "fp16": Parameters(weights="fp16"),
    "int8": Parameters(weights="int8"),
    "kv-fp32": Parameters(KV),
    "kv-int8": Parameters(KV, "int8"),
    "kv-int8-dynamic": Parameters(KV, "int8", 128),
    "stateful-fp32": Parameters(STATEFUL),
    "stateful-int8": Parameters(STATEFUL, "int8"),
}


def convert(source: Source, folder: Path, parameters: Parameters, progress: Progress) -> dict[str, str]:
    """Raises UsageError for an offline checkpoint."""
    import openvino

    from nemoport.export.config import runtime_config
    from nemoport.export.targets.openvino.compress import compress
    from nemoport.export.targets.openvino.graphs import converted
    from nemoport.export.targets.openvino.metadata import metadata, write_beside
    from nemoport.export.targets.openvino.stateful import stateful

    checkpoint = source.checkpoint
    if checkpoint.spec.streaming is None:
        raise UsageError(
            "The target openvino is for streaming models.",
            expected="a cache-aware streaming checkpoint, with or without a language prompt",
            found=f"{checkpoint.path.name}, which is {checkpoint.spec.kind}",
            todo="export it to ONNX, which OpenVINO reads too",
        )
    onnx = source.onnx(parameters.converted_from)
    models = converted(onnx)
    if parameters.weights == "int8":
        progress("openvino: encoder weights to 8 bits")
        models[ENCODER] = compress(models[ENCODER], onnx.encoder)
    if parameters.contract == STATEFUL:
        models[ENCODER] = stateful(models[ENCODER], checkpoint.spec.streaming)
    models[ENCODER].set_rt_info(str(parameters.group), ["runtime_options", GROUP])
    for name, model in models.items():
        # The front end keeps its 0.8 MB: filterbank and waves in half precision would be heard in every frame.
        half = parameters.weights != "fp32" and name != PREPROCESSOR
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=half)
    config = runtime_config(checkpoint)
    values = metadata(config, checkpoint.tokens, parameters.contract, parameters.weights, parameters.runtime)
    write_beside(folder, checkpoint.tokens, values)
    return roles()


def roles() -> dict[str, str]:
    graphs = {name.removeprefix("nemotron_"): name for name in GRAPHS}
    files = {role: f"{name}.xml" for role, name in graphs.items()}
    files |= {f"{role}_data": f"{name}.bin" for role, name in graphs.items()}
    return files | {"vocabulary": VOCABULARY, "metadata": METADATA}


def problems(artifact: Artifact, spec: ModelSpec) -> Iterator[str]:
    """Names, types and shapes of every graph, what the encoder keeps as state, and the two files beside them."""
    import openvino

    from nemoport.export.targets.openvino.metadata import metadata, vocabulary

    parameters = Parameters(**{k: v for k, v in artifact.manifest.recipe.parameters.items() if k != "target"})
    core, folder = openvino.Core(), artifact.folder
    if parameters.group and "vnni" not in (here := instruction_set()):
        yield f"activations are rounded by processors with VNNI: on this one ({here}) the gates would judge another function"
    for name, sides in interfaces(spec, parameters.contract).items():
        model = core.read_model(folder / f"{name}.xml")
        for side, wanted, ports in zip(("input", "output"), sides, (model.inputs, model.outputs), strict=True):
            found = {port.get_any_name(): port for port in ports}
            for unknown in sorted(set(found) - set(wanted)):
                yield f"{name}: unknown {side} {unknown}"
            for key, tensor in wanted.items():
                yield _differs(f"{name}: {side} {key}", tensor, _tensor(found.get(key)))
        if name == ENCODER:
            yield from _state_problems(model, states(spec, parameters.contract))
    tokens, unread = read_tokens(artifact.shared / "tokens.txt"), "build the variant again"
    yield _differs(VOCABULARY, vocabulary(tokens), read_json(folder / VOCABULARY, unread))
    config = {**artifact.config(), "spec": spec.to_dict()}
    wanted = metadata(config, tokens, parameters.contract, parameters.weights, parameters.runtime)
    found = read_json(folder / METADATA, unread)
    for key in sorted({*wanted, *found}):
        yield _differs(f"{METADATA}: {key}", wanted.get(key), found.get(key))


def _state_problems(model, wanted: dict) -> Iterator[str]:
    read = {op.get_variable_id(): op.output(0) for op in model.get_ops() if op.get_type_name() == "ReadValue"}
    written = {sink.get_variable_id() for sink in model.get_sinks()}
    for unknown in sorted({*read, *written} - set(wanted)):
        yield f"{ENCODER}: unknown state {unknown}"
    for key, tensor in wanted.items():
        yield _differs(f"{ENCODER}: state {key}", tensor, _tensor(read.get(key)))
        yield "" if key in written else f"{ENCODER}: state {key} is never written"


def _tensor(port):
    if port is None:
        return None
    dims = tuple(-1 if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
    return port.get_element_type().get_type_name(), dims


def _differs(what: str, expected, found) -> str:
    return "" if expected == found else f"{what}: expected {expected}, found {found}"
