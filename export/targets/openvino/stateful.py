"""Makes the caches of an encoder in the cache layout kv OpenVINO's state, so that a caller feeds mel and keeps no cache.

OpenVINO's own transformation, `apply_make_stateful_transformation`, pairs an input with an output of the same contents; this
graph returns only what a chunk adds. A request runs one stream: where the first chunk sets the number of streams, fresh requests
returned no frames, or crashed, in OpenVINO 2026.4's CPU plugin once the state of another one had been set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nemoport.caches_kv import KvCaches
from nemoport.spec import StreamingSpec


def stateful(model: Any, streaming: StreamingSpec) -> Any:
    """Returns an openvino.Model whose variables have the names of the inputs that they replace, and are zeros after a reset.

    model: openvino.Model of the encoder, with the names of nemoport/runtimes/openvino/graphs.py; it cannot be used afterwards.
    """
    import openvino
    from openvino import opset13 as opset
    from openvino.op.util import Variable, VariableInfo

    caches = KvCaches.shapes(streaming, 1)
    shapes = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
    model.reshape({name: caches.get(name, [1, *shape[1:]]) for name, shape in shapes.items()})
    inputs = {port.get_any_name(): port.get_node() for port in model.inputs}
    outputs = {port.get_any_name(): port.get_node() for port in model.outputs}
    added = [outputs.pop(name).input_value(0) for name in KvCaches.outputs(streaming)]

    def integers(*values: int):
        return opset.constant(np.array(values, np.int32))

    def state(name: str):
        """Replaces an input by a variable; returns the node that reads it, and the variable."""
        parameter, info = inputs.pop(name), VariableInfo()
        info.variable_id, info.data_shape = name, parameter.get_partial_shape()
        info.data_type = parameter.get_element_type()
        variable, readers = Variable(info), parameter.output(0).get_target_inputs()
        zeros = opset.broadcast(opset.constant(0, info.data_type), integers(*caches[name]))  # a constant would be stored whole
        value = opset.read_value(zeros, variable)
        for reader in readers:
            reader.replace_source_output(value.output(0))
        return value, variable

    assigned = []
    *windows, length = caches
    for name, new in zip(windows, added, strict=True):
        value, variable = state(name)
        last, end, step, frames = map(integers, (-caches[name][0], 2**31 - 1, 1, 0))
        after = opset.slice(opset.concat([value, new], 0), last, end, step, frames)
        assigned.append(opset.assign(after, variable))
    value, variable = state(length)
    frames = opset.gather(opset.shape_of(added[0], "i32"), integers(0), np.int32(0))
    after = opset.minimum(opset.add(value, frames), integers(streaming.left_context_enc_frames))
    assigned.append(opset.assign(after, variable))
    results, parameters = list(outputs.values()), list(inputs.values())
    return openvino.Model(results, assigned, parameters)  # pyright: ignore[reportGeneralTypeIssues]  # stubs of the C++ class
