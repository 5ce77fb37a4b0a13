"""Converts the fp32 ONNX graphs to openvino.Model, with the names and types of nemoport/runtimes/openvino/graphs.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nemoport.artifact import Artifact
from nemoport.export.shared import FRONTEND
from nemoport.export.split import split_decoder
from nemoport.files import scratch_folder
from nemoport.runtimes.openvino.graphs import CTC_HEAD, DECODER, ENCODER, JOINT, PREPROCESSOR, RENAMED
from nemoport.spec import CTC

UNUSED = "prednet_lengths"  # an output that only copies an input


def converted(source: Artifact) -> dict[str, Any]:
    """Converts an fp32 ONNX variant, which must be in its build: graph name -> openvino.Model. Raises ArtifactError."""
    import onnx
    import openvino

    with scratch_folder() as scratch:
        places = {ENCODER: source.encoder, PREPROCESSOR: source.shared / FRONTEND}
        if source.spec.head == CTC:
            places[CTC_HEAD] = source.decoder
        else:
            decoder = split_decoder(onnx.load(source.decoder))
            for name, part in ((DECODER, decoder.predictor), (JOINT, decoder.joiner)):
                places[name] = scratch / f"{name}.onnx"
                onnx.save(part, places[name])
        # Converted within the block: OpenVINO maps the files of weights, and on some systems a mapped one cannot be removed.
        return {name: _named(openvino.convert_model(str(path)), RENAMED[name]) for name, path in places.items()}


def _named(model: Any, names: dict[str, str]) -> Any:
    """Renames inputs and outputs, names: old -> new, and makes those of i64 i32: they are counts, tokens and prompt slots."""
    import openvino
    from openvino import opset13 as opset

    results = [r for r in model.get_results() if UNUSED not in r.output(0).get_names()]
    model = openvino.Model(results, model.get_parameters())  # pyright: ignore[reportGeneralTypeIssues]  # stubs of the C++ class
    for parameter in _integers(model.get_parameters()):
        readers = parameter.output(0).get_target_inputs()
        parameter.set_element_type(openvino.Type.i32)
        wide = opset.convert(parameter, "i64").output(0)
        for reader in readers:
            reader.replace_source_output(wide)
    returned = {next(iter(r.output(0).get_names())): r for r in model.get_results()}
    for result in _integers(returned.values()):
        result.input(0).replace_source_output(opset.convert(result.input_value(0), "i32").output(0))
    model.validate_nodes_and_infer_types()
    for port in model.inputs:
        _name(port, port.get_any_name(), names)
    for name, result in returned.items():
        _name(result.output(0), name, names)
    return model


def _integers(nodes: Iterable) -> list:
    import openvino

    return [node for node in nodes if node.output(0).get_element_type() == openvino.Type.i64]


def _name(port: Any, old: str, names: dict[str, str]) -> None:
    name = names.get(old, old)
    port.get_tensor().set_names({name})
    port.get_node().set_friendly_name(name)
