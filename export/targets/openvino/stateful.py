"""The encoder of the kv contract with its caches as OpenVINO's state: what feeds it hands over mel and keeps nothing.

OpenVINO's own transformation, `apply_make_stateful_transformation`, joins an input with an output that holds the same; this
graph gives only what a chunk adds. One stream a request: where the first chunk decides how many there are, fresh requests gave
no frames, or crashed, in OpenVINO 2026.4's CPU plugin once the state of another one had been set.
"""

from __future__ import annotations

import numpy as np

from nemoport.caches_kv import KvCaches
from nemoport.spec import StreamingSpec


def stateful(model, streaming: StreamingSpec):
    """model: openvino.Model of the encoder, by the names of names.py, which is taken apart. Variables are called as the
    inputs that they replace, and are zeros after a reset."""
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
        """In the place of an input: its value, and the variable."""
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
    return openvino.Model(list(outputs.values()), assigned, list(inputs.values()))
