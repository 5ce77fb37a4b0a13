"""The numbers and names that are read from a checkpoint's config: each with its type and its bounds.

A config may come from a stranger, and every one of these becomes a size, a loop or a text of an artifact. The bounds are several
times those of the largest published model of a kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nemoport.export.kinds import LOG_GUARD, kind_of, vocabulary
from nemoport.export.one_form import DEFAULT_STRIDE_S, DEFAULT_WINDOW_S, UNLIMITED_SYMBOLS
from nemoport.prompt import LANGUAGE_NAME, MOST_LANGUAGES
from nemoport.spec import CTC
from nemoport.text import clipped
from nemoport.tokens import is_piece

MOST_CONTEXTS = 32
MOST_PIECES = 65_536


@dataclass(frozen=True)
class Number:
    """low, high: inclusive; default: NeMo's for a config without the key, None where every config has it; whole: an integer."""

    low: float
    high: float
    default: float | None = None
    whole: bool = True

    def accepts(self, value: object) -> bool:
        """Whether a value has the type and lies within the bounds, which NaN does not."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{'a whole number' if self.whole else 'a number'} from {self.low:g} to {self.high:g}"


NUMBERS = {
    "preprocessor.sample_rate": Number(4000, 192_000),
    "preprocessor.features": Number(8, 512),
    "preprocessor.n_fft": Number(32, 65_536, default=512),
    # In seconds, or in samples where the config has none in seconds (one_form.py).
    "preprocessor.window_size": Number(0.001, 1, default=DEFAULT_WINDOW_S, whole=False),
    "preprocessor.window_stride": Number(0.001, 1, default=DEFAULT_STRIDE_S, whole=False),
    "preprocessor.n_window_size": Number(1, 65_536, default=1),
    "preprocessor.n_window_stride": Number(1, 65_536, default=1),
    "preprocessor.log_zero_guard_value": Number(1e-30, 1, default=LOG_GUARD, whole=False),
    "preprocessor.preemph": Number(0, 1, default=0.97, whole=False),
    "encoder.n_layers": Number(1, 256),
    "encoder.d_model": Number(8, 16_384),
    "encoder.n_heads": Number(1, 256, default=4),
    "encoder.conv_kernel_size": Number(1, 255, default=31),
    "encoder.subsampling_conv_channels": Number(-1, 16_384, default=-1),
    "encoder.ff_expansion_factor": Number(1, 64, default=4),
    "encoder.pos_emb_max_len": Number(1, 1_000_000, default=5000),
    "decoder.prednet.pred_hidden": Number(1, 16_384),
    "decoder.prednet.pred_rnn_layers": Number(1, 16),
    "decoder.prednet.dropout": Number(0, 1, default=0, whole=False),
    "joint.jointnet.joint_hidden": Number(1, 16_384),
    "joint.jointnet.dropout": Number(0, 1, default=0, whole=False),
    "decoding.greedy.max_symbols": Number(1, UNLIMITED_SYMBOLS, default=10),
    "model_defaults.num_prompts": Number(1, 65_536, default=128),
}
# Sections below which a value is read, beside those that kinds.py requires; and the value that each may have instead.
SECTIONS = {
    "model_defaults": None,
    "tokenizer": None,
    "decoding": None,
    "decoding.greedy": None,
    "aux_ctc": None,
    "aux_ctc.decoder": None,
    "loss": None,
    "loss.tdt_kwargs": None,
    "decoder.prednet": {},
    "joint.jointnet": {},
}
_TRANSDUCER = ("decoder.", "joint.", "decoding.")  # beginnings of the keys that a CTC model does not have
_CONTEXT = Number(-1, 10_000)
_DURATION = Number(0, 1000)
_MOST_DURATIONS = 64


def number(config: dict, key: str) -> Any:
    """The value of a key of NUMBERS, int or float; NeMo's default where the config has none. Check `malformed` before."""
    bounds = NUMBERS[key]
    value = _found(config, key)
    return bounds.default if value is None else value


def wrong_sections(config: dict) -> list[str]:
    """Every section below which a value is read, and which is no mapping; empty if none. Call it before anything else."""
    problems = []
    for key, absent in SECTIONS.items():
        above, _, name = key.rpartition(".")
        parent = config.get(above) if above else config
        value = parent.get(name, absent) if isinstance(parent, dict) else absent
        if value != absent and not isinstance(value, dict):
            problems.append(f"{key} is {clipped(repr(value))}, not a section")
    return problems


def malformed(config: dict) -> list[str]:
    """Every value of a config that has not its type or lies outside of its bounds; empty if none. For a config in which
    unsupported.py finds nothing."""
    problems = []
    ctc = kind_of(config).head == CTC
    for key, bounds in NUMBERS.items():
        if ctc and key.startswith(_TRANSDUCER):
            continue
        if not bounds.accepts(value := number(config, key)):
            problems.append(f"{key} is {clipped(repr(value))}, not {bounds}")
    if not problems and number(config, "encoder.d_model") % number(config, "encoder.n_heads"):
        problems.append("encoder.d_model is no multiple of encoder.n_heads")
    problems += _wrong_lists(config)
    problems += [f"vocabulary: {clipped(ascii(piece))} is no piece" for piece in _wrong_pieces(vocabulary(config))]
    languages = (config.get("model_defaults") or {}).get("prompt_dictionary") or {}
    if not isinstance(languages, dict) or len(languages) > MOST_LANGUAGES:
        problems.append(f"model_defaults.prompt_dictionary has not names, {MOST_LANGUAGES} at most")
    else:
        wrong = [name for name in languages if not (isinstance(name, str) and re.fullmatch(LANGUAGE_NAME, name))]
        problems += [f"model_defaults.prompt_dictionary: {clipped(ascii(name))} is no name of a language" for name in wrong[:3]]
    return problems


def _found(config: dict, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _wrong_lists(config: dict) -> list[str]:
    contexts = config["encoder"].get("att_context_size") or [-1, -1]
    pairs = contexts if isinstance(contexts, list) and isinstance(contexts[0], list) else [contexts]
    problems = []
    if len(pairs) > MOST_CONTEXTS or not all(
        isinstance(pair, list) and len(pair) in (2, 3) and all(map(_CONTEXT.accepts, pair)) for pair in pairs
    ):
        problems.append(f"encoder.att_context_size is {clipped(repr(contexts))}, not pairs of frames, {MOST_CONTEXTS} at most")
    decoding, loss = config.get("decoding") or {}, config.get("loss") or {}
    for name, found in (
        ("decoding.durations", decoding.get("durations")),
        ("loss.tdt_kwargs.durations", (loss.get("tdt_kwargs") or {}).get("durations")),
    ):
        found = found or []
        if not isinstance(found, list) or len(found) > _MOST_DURATIONS or not all(map(_DURATION.accepts, found)):
            problems.append(f"{name} is {clipped(repr(found))}, not numbers of frames, {_MOST_DURATIONS} at most")
    return problems


def _wrong_pieces(pieces: Any) -> list[Any]:
    """The first three that are no text, empty, overlong, or that a line of tokens.txt or a terminal cannot hold."""
    if not isinstance(pieces, list) or len(pieces) > MOST_PIECES:
        return [pieces]
    return [piece for piece in pieces if not is_piece(piece)][:3]
