"""Settings of a checkpoint's config in one form: NeMo takes several values for the same, and derives what is absent.

Only values of the expected types are changed. What is left is judged by kinds.py and hyperparameters.py.
"""

from __future__ import annotations

import math
from typing import Any

EPS_FLOAT32 = 2.0**-23  # torch.finfo(torch.float32).eps, which NeMo takes for the name "eps"
NORMALISED = ("per_feature", "all_features")  # and statistics; any other value is none to NeMo (features.py normalize_batch)
UNLIMITED_SYMBOLS = 1000  # tokens a frame: no model emits as many, and a loop has an end
DEFAULT_WINDOW_S, DEFAULT_STRIDE_S = 0.02, 0.01


def in_one_form(config: dict) -> dict:
    """Returns a config that means the same to NeMo 3.0.0, with one value for each meaning."""
    changed = dict(config)
    for section, settings in (("preprocessor", _preprocessor), ("encoder", _encoder), ("decoding", _decoding)):
        if isinstance(found := config.get(section), dict):
            changed[section] = settings(found)
    return changed


def frame_samples(mel: dict, name: str) -> int:
    """Samples of a front end's window or hop. name: window_size or window_stride, of a preprocessor section in one form."""
    return mel[f"n_{name}"] if not mel.get(name) else int(mel[name] * mel["sample_rate"])


def _preprocessor(found: dict) -> dict:
    mel = {"window_size": DEFAULT_WINDOW_S, "window_stride": DEFAULT_STRIDE_S, **found}
    for name in ("window_size", "window_stride"):
        if _whole(samples := mel.get(f"n_{name}")) and not mel[name]:
            mel[name] = None
        elif not samples:
            mel.pop(f"n_{name}", None)
    if "preemph" in mel and mel["preemph"] is None:  # none
        mel["preemph"] = 0.0
    rate, high = mel.get("sample_rate"), mel.get("highfreq")
    if not high or (isinstance(rate, int) and high == rate / 2):
        mel["highfreq"] = None
    if mel.get("log_zero_guard_value") == "eps":
        mel["log_zero_guard_value"] = EPS_FLOAT32
    if "normalize" in mel and not _normalises(mel["normalize"]):
        mel["normalize"] = "NA"
    if not mel.get("n_fft"):
        mel["n_fft"] = _fft_of_window(mel)
    return mel


def _normalises(value: Any) -> bool:
    return bool(value) and (value in NORMALISED or ("fixed_mean" in value and "fixed_std" in value))


def _fft_of_window(mel: dict) -> int | None:
    """The least power of two that holds the window; None where its length is not known."""
    try:
        window = frame_samples(mel, "window_size")
        return 2 ** math.ceil(math.log2(window))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _encoder(found: dict) -> dict:
    encoder = dict(found)
    kernel, context = encoder.get("conv_kernel_size", 31), encoder.get("conv_context_size")
    if _whole(kernel) and isinstance(context, list):
        if context == [kernel - 1, 0]:
            encoder["conv_context_size"] = "causal"
        elif context == [(kernel - 1) // 2] * 2:
            encoder["conv_context_size"] = None
    return encoder


def _decoding(found: dict) -> dict:
    """NeMo takes the older key where the newer one is absent, null or 0, and no limit where both are; a section without `greedy`
    has NeMo's default."""
    if not isinstance(greedy := found.get("greedy"), dict):
        return found
    limit = greedy.get("max_symbols") or greedy.get("max_symbols_per_step") or UNLIMITED_SYMBOLS
    return {**found, "greedy": {**greedy, "max_symbols": limit}}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
