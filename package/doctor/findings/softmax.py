"""Scores of a transducer that went through a softmax or a log-softmax in the graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.foreign.folder import ForeignModel
from nemoport.foreign.graph import Graph
from nemoport.package.doctor.check import WARNING, Check, Found
from nemoport.package.doctor.examined import Examined, Opened

_MOVES = ("Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
_EXPECTED = "raw scores, as NeMo's own export gives"


def find(examined: Examined, model: ForeignModel) -> Iterator[Found]:
    part = model.scores
    if model.head != "transducer" or part is None or "outputs" not in part.ports.outputs:
        return
    if operator := _last_operator(part.graph, part.ports.outputs["outputs"].name):
        yield Found(part.name, _EXPECTED, f"{operator} behind the joint", WARNING)
        return
    opened = examined.opened(model)
    try:
        kind = _normalised(opened)
    except ArtifactError:  # the check `runs` names it
        return
    if kind:
        yield Found(part.name, _EXPECTED, kind, WARNING)


def _last_operator(graph: Graph, name: str) -> str:
    """LogSoftmax or Softmax, if one makes the scores."""
    for _ in range(8):
        node = graph.makers.get(name)
        if node is None or node.op_type not in _MOVES:
            return node.op_type if node is not None and node.op_type in ("LogSoftmax", "Softmax") else ""
        name = node.input[0]
    return ""


def _normalised(opened: Opened) -> str:
    """What the scores of frames of noise sum to, if that shows a softmax."""
    if not opened.session:
        return ""
    spec = opened.session.spec
    frames = np.random.default_rng(0).normal(0.0, 1.0, (1, 4, spec.encoder.d_model)).astype(np.float32)
    zeros = np.zeros(spec.decoding.state_shape(1), np.float32)
    scores, _ = opened.session.step(frames, np.array([spec.decoding.blank_id], np.int32), (zeros, zeros))
    exponents = np.exp(scores.astype(np.float64)).sum(-1)
    if np.allclose(exponents, 1.0, atol=1e-3):
        return "scores whose exponents sum to 1: a log-softmax"
    if (scores >= 0).all() and np.allclose(scores.sum(-1), 1.0, atol=1e-3):
        return "scores that sum to 1: a softmax"
    return ""


CHECK = Check(
    "a softmax in the joint",
    "The best token is the same, but of a softmax every program that takes a log-softmax of its own gets flat scores: beam "
    "search, hotwords, a blank penalty and confidences go wrong, and words with them. A TDT's durations are in the same sum.",
    "Export the joint with `joint.log_softmax = False`, as `model.export()` and `nemoport export` do.",
    in_model=find,
    runs=True,
)
