"""The kinds of checkpoint that are exported, one entry of KINDS each, and what a checkpoint's config must contain for its
kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemoport.export.known_options import component_problems, tokenizer_problems, unknown_options
from nemoport.text import clipped

LOG_GUARD = 2.0**-24  # NeMo AudioToMelSpectrogramPreprocessor's default log_zero_guard_value
HYBRID = "EncDecHybridRNNTCTCBPEModel"  # NeMo's transducer of the same class, and a CTC decoder beside it, which is left out

Settings = dict[str, tuple[Any, Any]]  # key of a section -> (NeMo's value where the config has no such key, the required value)


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint that is exported.

    name: ends with the name of its head (nemoport/heads/), as offline-tdt does; nemo_class: the last part of the config's
    `target`; sections: section of the config -> its required settings; streaming: whether the encoder is cache-aware, or has
    full context; prompt: whether the model has a language prompt; hybrid: the class of models that have a transducer of this kind
    beside another decoder, or "".
    """

    name: str
    nemo_class: str
    sections: Mapping[str, Settings]
    streaming: bool
    prompt: bool = False
    hybrid: str = ""

    @property
    def head(self) -> str:
        """rnnt or tdt."""
        return self.name.rpartition("-")[2]


_ANY_ENCODER: Settings = {
    "self_attention_model": ("rel_pos", "rel_pos"),
    "subsampling": ("striding", "dw_striding"),
    "subsampling_factor": (4, 8),
    "untie_biases": (True, True),
    "reduction": (None, None),
    "global_tokens": (0, 0),
    "att_chunk_context_size": (None, None),
}
_STREAMING_ENCODER: Settings = {
    "att_context_style": ("regular", "chunked_limited"),
    "conv_norm_type": ("batch_norm", "layer_norm"),
    "conv_context_size": (None, "causal"),
    "causal_downsampling": (False, True),
}
_OFFLINE_ENCODER: Settings = {
    "att_context_style": ("regular", "regular"),
    "conv_norm_type": ("batch_norm", "batch_norm"),
    "conv_context_size": (None, None),
    "causal_downsampling": (False, False),
}
_FRONTEND: Settings = {
    "window": ("hann", "hann"),
    "log": (True, True),
    "frame_splicing": (1, 1),
    "mag_power": (2.0, 2.0),
    "mel_norm": ("slaney", "slaney"),
    "exact_pad": (False, False),
    "lowfreq": (0, 0),
    "highfreq": (None, None),
    "log_zero_guard_type": ("add", "add"),
    "pad_value": (0, 0),
}
_DECODER: Settings = {"normalization_mode": (None, None), "blank_as_pad": (True, True)}
_STREAMING_SECTIONS = {
    "encoder": _ANY_ENCODER | _STREAMING_ENCODER,
    "decoder": _DECODER,
    "preprocessor": _FRONTEND | {"normalize": ("per_feature", "NA")},
}
_OFFLINE_SECTIONS = {
    "encoder": _ANY_ENCODER | _OFFLINE_ENCODER,
    "decoder": _DECODER,
    "preprocessor": _FRONTEND | {"normalize": ("per_feature", "per_feature")},
}
KINDS = (
    Kind("streaming-rnnt", "EncDecRNNTBPEModel", _STREAMING_SECTIONS, streaming=True, hybrid=HYBRID),
    Kind("streaming-prompt-rnnt", "EncDecRNNTBPEModelWithPrompt", _STREAMING_SECTIONS, streaming=True, prompt=True),
    Kind("offline-rnnt", "EncDecRNNTBPEModel", _OFFLINE_SECTIONS, streaming=False, hybrid=HYBRID),
    Kind("offline-tdt", "EncDecRNNTBPEModel", _OFFLINE_SECTIONS, streaming=False, hybrid=HYBRID),
)
_SECTIONS = ("encoder", "decoder", "joint", "preprocessor")  # that every config has


def kind_named(name: str) -> Kind:
    """The entry of KINDS with a name."""
    return next(kind for kind in KINDS if kind.name == name)


def kind_of(config: dict) -> Kind:
    """The kind that a config is nearest to; `unsupported` lists why it may be none. The attention context decides first, then
    the class, then the head; of equally near kinds, the first in KINDS."""
    encoder = config.get("encoder")
    streaming = not isinstance(encoder, dict) or _is_cache_aware(encoder)
    nemo_class, head = _nemo_class(config), "tdt" if _is_tdt(config) else "rnnt"

    def agreement(kind: Kind) -> list[bool]:
        known = bool(nemo_class) and nemo_class in (kind.nemo_class, kind.hybrid)
        return [kind.streaming == streaming, known, kind.head == head]

    return max(KINDS, key=agreement)


def _is_cache_aware(encoder: dict) -> bool:
    """Whether the encoder has limited contexts. Those of local attention, and of an encoder that is else an offline one, were put
    on a model of full context (NeMo's change_attention_model)."""
    if all(pair == [-1, -1] for pair in contexts(encoder)):
        return False
    local = (
        encoder.get("self_attention_model") == "rel_pos_local_attn" and encoder.get("att_context_style", "regular") == "regular"
    )
    return not local and any(encoder.get(key, default) != needed for key, (default, needed) in _OFFLINE_ENCODER.items())


def _nemo_class(config: dict) -> str:
    return str(config.get("target", "")).rpartition(".")[2]


def is_hybrid(config: dict) -> bool:
    """Whether the model has another decoder beside its transducer."""
    return _nemo_class(config) == HYBRID


def prompt_defaults(config: dict) -> dict:
    """The section in which NeMo keeps a prompt model's dictionary."""
    return config.get("model_defaults") or {}


def durations(config: dict) -> tuple[int, ...]:
    """Durations of a TDT model, in encoder frames and in the order of the joint's outputs: those of the loss, which NeMo writes
    over those of `decoding` (set_decoding_type_according_to_loss), else these. Empty for an RNNT model."""
    decoding, loss = config.get("decoding") or {}, config.get("loss") or {}
    trained = (loss.get("tdt_kwargs") or {}).get("durations") if loss.get("loss_name") == "tdt" else None
    return tuple(int(d) for d in trained or decoding.get("durations") or ())


def _is_tdt(config: dict) -> bool:
    return bool(durations(config)) or (config.get("loss") or {}).get("loss_name") == "tdt"


def unsupported(config: dict) -> list[str]:
    """Every reason for which a config's model is not exported, each as `key is X, not Y`; empty if it is."""
    kind, nemo_class = kind_of(config), _nemo_class(config)
    known = nemo_class and nemo_class in (kind.nemo_class, kind.hybrid)
    problems = [] if known else [f"target is {clipped(nemo_class) or 'absent'}, not {kind.nemo_class}"]
    if kind.prompt:
        problems += _prompt_problems(prompt_defaults(config))
    missing = [section for section in _SECTIONS if not isinstance(config.get(section), dict)]
    problems += [f"the config has no {section}" for section in missing]
    required = {**kind.sections, "joint": {"num_extra_outputs": (0, len(durations(config)))}}
    for section in _SECTIONS:
        if isinstance(found := config.get(section), dict):
            problems += component_problems(section, found)
            problems += _differing(section, found, required[section])
            problems += unknown_options(section, found, required[section])
    if not missing:
        joint, prediction = config["joint"].get("jointnet") or {}, config["decoder"].get("prednet") or {}
        problems += _differing("joint.jointnet", joint, {"activation": (None, "relu")})
        problems += unknown_options("joint.jointnet", joint) + unknown_options("decoder.prednet", prediction)
        problems += _projection_problems(prediction) + _width_problems(config["encoder"])
        problems += tokenizer_problems(config.get("tokenizer") or {})
        if not config["joint"].get("vocabulary"):
            problems.append("joint.vocabulary is absent")
        problems += _context_problems(config["encoder"]) if kind.streaming else _offline_problems(config["encoder"])
    if _is_tdt(config):
        if kind.head != "tdt":
            problems.append("loss.loss_name is 'tdt': a cache-aware TDT model")
        elif min(durations(config), default=-1) < 0 or max(durations(config)) < 1:
            problems.append(f"decoding.durations is {clipped(list(durations(config)))}, not frame counts")
    return problems


def contexts(encoder: dict) -> list[list[int]]:
    """[left, right] of each lookahead, in encoder frames; NeMo writes one pair, or a list of them."""
    found: Any = encoder.get("att_context_size") or [[-1, -1]]
    return [found] if isinstance(found[0], int) else [list(pair) for pair in found]


def _differing(section: str, found: dict, required: Settings) -> list[str]:
    values = [(key, found.get(key, default), needed) for key, (default, needed) in required.items()]
    return [f"{section}.{key} is {clipped(repr(value))}, not {needed!r}" for key, value, needed in values if value != needed]


def _prompt_problems(defaults: dict) -> list[str]:
    problems = []
    if not defaults.get("initialize_prompt_feature"):
        problems.append("model_defaults.initialize_prompt_feature is not true: the model has no prompt")
    slots, languages = int(defaults.get("num_prompts", 128)), defaults.get("prompt_dictionary")
    if not isinstance(languages, dict) or not languages:
        return [*problems, "model_defaults.prompt_dictionary is absent"]
    outside = [clipped(f"{name} {slot}", 40) for name, slot in languages.items() if not (type(slot) is int and 0 <= slot < slots)]
    if outside:
        problems.append(f"model_defaults.prompt_dictionary leaves the {slots} slots of num_prompts: {', '.join(outside[:5])}")
    return problems


def _projection_problems(prednet: dict) -> list[str]:
    """NeMo makes an LSTM with a projection where its hidden size is more than the prediction's."""
    hidden, output = prednet.get("rnn_hidden_size", -1), prednet.get("pred_hidden")
    return [] if hidden in (-1, None, output) else [f"decoder.prednet.rnn_hidden_size is {clipped(repr(hidden))}, not {output!r}"]


def _width_problems(encoder: dict) -> list[str]:
    """NeMo adds a linear layer behind the encoder where its output is not as wide as its layers."""
    output, width = encoder.get("feat_out", -1), encoder.get("d_model")
    return [] if output in (-1, None, width) else [f"encoder.feat_out is {clipped(repr(output))}, not {width!r}"]


def _offline_problems(encoder: dict) -> list[str]:
    kernel, pairs = int(encoder.get("conv_kernel_size") or 31), contexts(encoder)
    problems = [] if kernel % 2 else [f"encoder.conv_kernel_size is {kernel}, not odd"]
    if any(pair != [-1, -1] for pair in pairs):
        problems.append(f"encoder.att_context_size is {clipped(pairs)}, not [-1, -1]: attention of a limited width")
    return problems


def _context_problems(encoder: dict) -> list[str]:
    pairs = contexts(encoder)
    if any(len(pair) != 2 or pair[0] <= 0 or pair[1] < 0 for pair in pairs):
        return [f"encoder.att_context_size is {clipped(pairs)}: not cache-aware (limited left and right contexts)"]
    lefts, rights = {left for left, _ in pairs}, {right for _, right in pairs}
    problems = []
    if len(lefts) > 1:
        problems.append(f"encoder.att_context_size has several left contexts {clipped(sorted(lefts))}, not one")
    if any(r + 2 in rights for r in rights):
        # The graph distinguishes a first chunk from a later one by its length, see encoder.py.
        problems.append(f"encoder.att_context_size has lookaheads r and r + 2 among {clipped(sorted(rights))}")
    return problems
