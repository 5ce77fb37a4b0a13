"""Parts of the offline encoder that go over a recording in blocks, so that memory does not grow with what they hold within.

The tracer cannot make a Loop of them. It exports each as one node of the domain DOMAIN, and `expand` puts standard
operators in its place, from the text of an ONNX function.
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
    """The model with every node of DOMAIN replaced; as it is where there is none. bodies: text of a function by its name;
    CHANNELS in it stands for the node's attribute `channels`."""
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
        if not node.name:  # the quantizers go by names
            node.name = f"/blocked/{node.output[0]}"
    return expanded
