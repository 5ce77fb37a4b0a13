"""What transformers.js reads of a package besides the configuration: the graph in its form, and the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nemoport.export.merged import SCORES
from nemoport.package.boundary import Port, Side, compute_input, rewire
from nemoport.spec import ModelSpec
from nemoport.tokens import WORD_START, Pieces

BLANK = "<pad>"
MASK = "attention_mask"
COUNTS = "encoded_lengths"
INPUTS: Side = {"audio_signal": Port("input_features", (0, 2, 1)), "length": Port("length")}
OUTPUTS: Side = {SCORES: Port("logits"), COUNTS: Port(COUNTS)}
_OWN = "transformers_js/"  # of the tensors that are added to a graph, whose names it could have too


def as_ctc_model(model: Any, spec: ModelSpec) -> None:
    """Gives a graph of `merged` the inputs and outputs of transformers' ParakeetForCTC.

    input_features f32 [B, T, n_mels], attention_mask i64 [B, T], 1 for each valid frame -> logits f32 [B, T', V + 1], of which
    the best behind the last valid frame is blank, and encoded_lengths i64 [B], which transformers.js does not read.
    """
    from onnx import TensorProto, helper

    _mask_scores(model.graph, spec)
    rewire(model, INPUTS, OUTPUTS)
    counted = helper.make_node("ReduceSum", [MASK, f"{_OWN}axis"], ["length"], name=f"{_OWN}length", keepdims=0)
    mask = helper.make_tensor_value_info(MASK, TensorProto.INT64, ["batch", "mel_frames"])
    compute_input(model, "length", [counted], [mask])


def _mask_scores(graph: Any, spec: ModelSpec) -> None:
    """Makes the best token blank behind the end of each recording."""
    from onnx import helper, numpy_helper

    blank = np.full(spec.decoding.n_scores, np.finfo(np.float32).min, np.float32)
    blank[spec.decoding.blank_id] = 0.0
    constants = {"zero": np.int64(0), "one": np.int64(1), "axis": np.array([1]), "last": np.array([2]), "blank": blank}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), _OWN + name) for name, value in constants.items())
    for node in graph.node:
        node.output[:] = [f"{_OWN}scores" if name == SCORES else name for name in node.output]
    own = {name: _OWN + name for name in (*constants, "scores", "count", "stop", "times", "ends", "valid", "rows")}
    graph.node.extend(
        (
            helper.make_node("Shape", [own["scores"]], [own["count"]], start=1, end=2),
            helper.make_node("Squeeze", [own["count"]], [own["stop"]]),
            helper.make_node("Range", [own["zero"], own["stop"], own["one"]], [own["times"]]),
            helper.make_node("Unsqueeze", [COUNTS, own["axis"]], [own["ends"]]),
            helper.make_node("Less", [own["times"], own["ends"]], [own["valid"]]),
            helper.make_node("Unsqueeze", [own["valid"], own["last"]], [own["rows"]]),
            helper.make_node("Where", [own["rows"], own["scores"], own["blank"]], [SCORES]),
        )
    )


def with_mask(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns what such a graph is fed: a mask in place of lengths."""
    features, lengths = feeds["input_features"], feeds["length"]
    return {"input_features": features, MASK: (np.arange(features.shape[1]) < lengths[:, None]).astype(np.int64)}


def tokenizer(pieces: Pieces) -> dict[str, Any]:
    """Returns the content of tokenizer.json: the pieces by id, blank last, and a decoder that joins runs of equal tokens.

    The scores fall with the id, as those of SentencePiece's BPE models do; nothing here splits a text into tokens.
    """
    rule = pieces.rule
    spelled = [rule.unknown_text.replace(" ", WORD_START) if piece == rule.unknown else piece for piece in (*pieces, BLANK)]
    spaces = {"type": "Metaspace", "replacement": WORD_START, "prepend_scheme": "always", "split": False}
    joined = {"type": "CTC", "pad_token": BLANK, "word_delimiter_token": WORD_START, "cleanup": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [joined, spaces]},
        "model": {
            "type": "Unigram",
            "unk_id": pieces.index(rule.unknown) if rule.unknown in pieces else None,
            "vocab": [[piece, -float(i)] for i, piece in enumerate(spelled)],
            "byte_fallback": False,
        },
    }
