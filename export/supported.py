"""What a checkpoint's config must say for its model to be exported."""

from __future__ import annotations

LOG_GUARD = 2.0**-24  # NeMo AudioToMelSpectrogramPreprocessor's default log_zero_guard_value


def unsupported(config: dict) -> list[str]:
    """Every reason at once, each as `key is X, not Y`."""
    target = str(config.get("target", "")).rpartition(".")[2]
    problems = [] if target == "EncDecRNNTBPEModel" else [f"target is {target or 'absent'}, not EncDecRNNTBPEModel"]
    missing = [key for key in ("encoder", "decoder", "joint", "preprocessor") if not isinstance(config.get(key), dict)]
    problems += [f"the config has no {key}" for key in missing]
    required = {
        "encoder": {
            "self_attention_model": ("rel_pos", "rel_pos"),
            "att_context_style": ("regular", "chunked_limited"),
            "conv_norm_type": ("batch_norm", "layer_norm"),
            "conv_context_size": (None, "causal"),
            "subsampling": ("striding", "dw_striding"),
            "subsampling_factor": (4, 8),
            "causal_downsampling": (False, True),
            "xscaling": (True, False),
            "untie_biases": (True, True),
            "reduction": (None, None),
            "global_tokens": (0, 0),
        },
        "decoder": {"normalization_mode": (None, None), "blank_as_pad": (True, True)},
        "joint": {"num_extra_outputs": (0, 0)},
        "preprocessor": {
            "window": ("hann", "hann"),
            "normalize": ("per_feature", "NA"),
            "log": (True, True),
            "frame_splicing": (1, 1),
            "mag_power": (2.0, 2.0),
            "mel_norm": ("slaney", "slaney"),
            "exact_pad": (False, False),
            "lowfreq": (0, 0),
            "highfreq": (None, None),
            "log_zero_guard_type": ("add", "add"),
            "log_zero_guard_value": (LOG_GUARD, LOG_GUARD),
        },
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
        problems += _context_problems(config["encoder"])
    if str((config.get("loss") or {}).get("loss_name")) == "tdt":
        problems.append("loss.loss_name is 'tdt': a TDT model")
    return problems


def contexts(encoder: dict) -> list[list[int]]:
    """[left, right] of each lookahead, in encoder frames; NeMo writes one pair, or a list of them."""
    found = encoder.get("att_context_size") or [[-1, -1]]
    return [found] if isinstance(found[0], int) else [list(c) for c in found]


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
