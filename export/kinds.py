"""What a checkpoint's config must say for its model to be exported, by the kind that it looks like."""

from __future__ import annotations

LOG_GUARD = 2.0**-24  # NeMo AudioToMelSpectrogramPreprocessor's default log_zero_guard_value


STREAMING_RNNT, STREAMING_PROMPT_RNNT = "streaming-rnnt", "streaming-prompt-rnnt"
OFFLINE_RNNT, OFFLINE_TDT = "offline-rnnt", "offline-tdt"
STREAMING = (STREAMING_RNNT, STREAMING_PROMPT_RNNT)
TARGET, PROMPT_TARGET = "EncDecRNNTBPEModel", "EncDecRNNTBPEModelWithPrompt"  # NeMo's classes

Needed = dict[str, tuple]  # key -> (what NeMo takes where it is absent, what it must be)

_ANY_ENCODER: Needed = {
    "self_attention_model": ("rel_pos", "rel_pos"),
    "subsampling": ("striding", "dw_striding"),
    "subsampling_factor": (4, 8),
    "xscaling": (True, False),
    "untie_biases": (True, True),
    "reduction": (None, None),
    "global_tokens": (0, 0),
}
_STREAMING_ENCODER: Needed = {
    "att_context_style": ("regular", "chunked_limited"),
    "conv_norm_type": ("batch_norm", "layer_norm"),
    "conv_context_size": (None, "causal"),
    "causal_downsampling": (False, True),
}
_OFFLINE_ENCODER: Needed = {
    "att_context_style": ("regular", "regular"),
    "conv_norm_type": ("batch_norm", "batch_norm"),
    "conv_context_size": (None, None),
    "causal_downsampling": (False, False),
}
_FRONTEND: Needed = {
    "window": ("hann", "hann"),
    "log": (True, True),
    "frame_splicing": (1, 1),
    "mag_power": (2.0, 2.0),
    "mel_norm": ("slaney", "slaney"),
    "exact_pad": (False, False),
    "lowfreq": (0, 0),
    "highfreq": (None, None),
    "log_zero_guard_type": ("add", "add"),
    "log_zero_guard_value": (LOG_GUARD, LOG_GUARD),
}
_DECODER: Needed = {"normalization_mode": (None, None), "blank_as_pad": (True, True)}


def kind_of(config: dict) -> str:
    """The kind that a config is nearest to; `unsupported` tells whether it is one."""
    encoder = config.get("encoder")
    if isinstance(encoder, dict) and all(pair == [-1, -1] for pair in contexts(encoder)):
        return OFFLINE_TDT if _is_tdt(config) else OFFLINE_RNNT
    return STREAMING_PROMPT_RNNT if _target(config) == PROMPT_TARGET else STREAMING_RNNT


def _target(config: dict) -> str:
    return str(config.get("target", "")).rpartition(".")[2]


def prompt_defaults(config: dict) -> dict:
    """The section in which NeMo keeps a prompt model's dictionary."""
    return config.get("model_defaults") or {}


def durations(config: dict) -> tuple[int, ...]:
    """Of a TDT model, in encoder frames and in the order of the joint's outputs: NeMo decodes by those of `decoding`."""
    decoding, loss = config.get("decoding") or {}, config.get("loss") or {}
    trained = (loss.get("tdt_kwargs") or {}).get("durations") if loss.get("loss_name") == "tdt" else None
    return tuple(int(d) for d in decoding.get("durations") or trained or ())


def _is_tdt(config: dict) -> bool:
    return bool(durations(config)) or (config.get("loss") or {}).get("loss_name") == "tdt"


def unsupported(config: dict) -> list[str]:
    """Every reason at once, each as `key is X, not Y`."""
    kind = kind_of(config)
    streaming = kind in STREAMING
    target, wanted = _target(config), PROMPT_TARGET if kind == STREAMING_PROMPT_RNNT else TARGET
    problems = [] if target == wanted else [f"target is {target or 'absent'}, not {wanted}"]
    if kind == STREAMING_PROMPT_RNNT:
        problems += _prompt_problems(prompt_defaults(config))
    missing = [key for key in ("encoder", "decoder", "joint", "preprocessor") if not isinstance(config.get(key), dict)]
    problems += [f"the config has no {key}" for key in missing]
    required = {
        "encoder": _ANY_ENCODER | (_STREAMING_ENCODER if streaming else _OFFLINE_ENCODER),
        "decoder": _DECODER,
        "joint": {"num_extra_outputs": (0, len(durations(config)))},
        "preprocessor": _FRONTEND | {"normalize": ("per_feature", "NA" if streaming else "per_feature")},
    }
    for section, keys in required.items():
        found = config.get(section)
        for key, (default, needed) in keys.items() if isinstance(found, dict) else ():
            value = found.get(key, default)
            if value != needed:
                problems.append(f"{section}.{key} is {value!r}, not {needed!r}")
    if not missing:
        activation = config["joint"].get("jointnet", {}).get("activation")
        if activation != "relu":
            problems.append(f"joint.jointnet.activation is {activation!r}, not 'relu'")
        if not config["joint"].get("vocabulary"):
            problems.append("joint.vocabulary is absent")
        problems += _context_problems(config["encoder"]) if streaming else _kernel_problems(config["encoder"])
    if _is_tdt(config):
        if streaming:
            problems.append("loss.loss_name is 'tdt': a cache-aware TDT model")
        elif min(durations(config), default=-1) < 0 or max(durations(config)) < 1:
            problems.append(f"decoding.durations is {list(durations(config))}, not frame counts")
    return problems


def contexts(encoder: dict) -> list[list[int]]:
    """[left, right] of each lookahead, in encoder frames; NeMo writes one pair, or a list of them."""
    found = encoder.get("att_context_size") or [[-1, -1]]
    return [found] if isinstance(found[0], int) else [list(c) for c in found]


def _prompt_problems(defaults: dict) -> list[str]:
    problems = []
    if not defaults.get("initialize_prompt_feature"):
        problems.append("model_defaults.initialize_prompt_feature is not true: the model has no prompt")
    slots, languages = int(defaults.get("num_prompts", 128)), defaults.get("prompt_dictionary")
    if not isinstance(languages, dict) or not languages:
        return [*problems, "model_defaults.prompt_dictionary is absent"]
    outside = [f"{name} {slot}" for name, slot in languages.items() if not (type(slot) is int and 0 <= slot < slots)]
    if outside:
        problems.append(f"model_defaults.prompt_dictionary leaves the {slots} slots of num_prompts: {', '.join(outside[:5])}")
    return problems


def _kernel_problems(encoder: dict) -> list[str]:
    kernel = int(encoder.get("conv_kernel_size") or 31)
    return [] if kernel % 2 else [f"encoder.conv_kernel_size is {kernel}, not odd"]


def _context_problems(encoder: dict) -> list[str]:
    pairs = contexts(encoder)
    if any(len(pair) != 2 or pair[0] <= 0 or pair[1] < 0 for pair in pairs):
        return [f"encoder.att_context_size is {pairs}: not cache-aware (limited left and right contexts)"]
    lefts, rights = {left for left, _ in pairs}, {right for _, right in pairs}
    problems = []
    if len(lefts) > 1:
        problems.append(f"encoder.att_context_size has several left contexts {sorted(lefts)}, not one")
    if any(r + 2 in rights for r in rights):
        # The graph tells a first chunk from a later one by its length, see encoder.py.
        problems.append(f"encoder.att_context_size has lookaheads r and r + 2 among {sorted(rights)}")
    return problems
