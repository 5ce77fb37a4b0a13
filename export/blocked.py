"""Expands the parts of the offline encoder that process a recording in blocks, which bounds the memory of their intermediate
tensors.

The tracer cannot make a Loop of them. It exports each as one node of the domain DOMAIN, and `expand` replaces the node by
standard operators, from the text of an ONNX function.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, inliner, parser

DOMAIN = "nemoport"


def function_text(text: str, **numbers: int) -> str:
    """An ONNX function's text with the number in place of each {NAME}."""
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", f"{{{number}}}")
    return text


def expand(model: onnx.ModelProto, bodies: Mapping[str, str]) -> onnx.ModelProto:
    """Replaces every node of DOMAIN; a model without one is returned as it is.

    bodies: name of an operator of DOMAIN -> text of its ONNX function, in which CHANNELS stands for the node's attribute
    `channels`.
    """
    nodes = {n.op_type: n for n in model.graph.node if n.domain == DOMAIN}
    if not nodes:
        return model
    opset = next(o.version for o in model.opset_import if o.domain == "")
    for name, node in nodes.items():
        channels = next((a.i for a in node.attribute if a.name == "channels"), 0)
        text = f'<opset_import: ["" : {opset}, "{DOMAIN}" : 1]>{bodies[name]}'
        function = parser.parse_function(text.replace("CHANNELS", str(channels)))
        function.domain = DOMAIN
        model.functions.append(function)
        node.ClearField("attribute")
    if not any(o.domain == DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    expanded = inliner.inline_local_functions(model)
    for node in expanded.graph.node:
        if not node.name:  # the quantizers identify nodes by name
            node.name = f"/blocked/{node.output[0]}"
    return expanded
