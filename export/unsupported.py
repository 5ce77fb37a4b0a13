"""Why a model is not exported: what its config must contain for its kind, and does not."""

from __future__ import annotations

from nemoport.export.kinds import (
    JUDGED_BY_ITSELF,
    Settings,
    contexts,
    durations,
    is_local,
    is_tdt,
    kind_of,
    nemo_class_of,
    prompt_defaults,
    vocabulary,
)
from nemoport.export.known_options import MODULES, component_problems, tokenizer_problems, unknown_options
from nemoport.export.one_form import frame_samples
from nemoport.spec import CTC
from nemoport.text import clipped

_FULL_ATTENTION: Settings = {"self_attention_model": ("rel_pos", "rel_pos")}  # or, offline, within a window


def unsupported(config: dict) -> list[str]:
    """Every reason for which a config's model is not exported, each as `key is X, not Y`; empty if it is."""
    kind, nemo_class = kind_of(config), nemo_class_of(config)
    known = nemo_class and nemo_class in (kind.nemo_class, kind.hybrid)
    problems = [] if known else [f"target is {clipped(nemo_class) or 'absent'}, not {kind.nemo_class}"]
    if kind.prompt:
        problems += _prompt_problems(prompt_defaults(config))
    missing = [section for section in kind.parts if not isinstance(config.get(section), dict)]
    problems += [f"the config has no {section}" for section in missing]
    required = {**kind.sections, "joint": {"num_extra_outputs": (0, len(durations(config)))}}
    for section in kind.parts:
        if isinstance(found := config.get(section), dict):
            module = MODULES[f"{kind.head}.{section}" if f"{kind.head}.{section}" in MODULES else section]
            problems += component_problems(section, found, module)
            problems += _differing(section, found, required[section])
            problems += unknown_options(section, found, module, required[section])
    if not missing:
        problems += [] if kind.head == CTC else _transducer_problems(config)
        problems += _width_problems(config["encoder"])
        problems += tokenizer_problems(config.get("tokenizer") or {})
        if not vocabulary(config):
            problems.append(f"{'decoder' if kind.head == CTC else 'joint'}.vocabulary is absent")
        encoder = config["encoder"]
        problems += _context_problems(encoder) if kind.streaming else _offline_problems(encoder, buffered=kind.buffered)
        problems += _window_problems(config) if kind.buffered else []
    if is_tdt(config):
        if kind.head != "tdt":
            problems.append(f"loss.loss_name is 'tdt': a {'cache-aware' if kind.streaming else 'buffered'} TDT model")
        elif min(durations(config), default=-1) < 0 or max(durations(config)) < 1:
            problems.append(f"decoding.durations is {clipped(list(durations(config)))}, not frame counts")
    return problems


def _differing(section: str, found: dict, required: Settings) -> list[str]:
    stated = {key: (default, needed) for key, (default, needed) in required.items() if needed is not JUDGED_BY_ITSELF}
    values = [(key, found.get(key, default), needed) for key, (default, needed) in stated.items()]
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


def _transducer_problems(config: dict) -> list[str]:
    joint, prediction = config["joint"].get("jointnet") or {}, config["decoder"].get("prednet") or {}
    problems = _differing("joint.jointnet", joint, {"activation": (None, "relu")})
    problems += unknown_options("joint.jointnet", joint, MODULES["joint.jointnet"])
    problems += unknown_options("decoder.prednet", prediction, MODULES["decoder.prednet"])
    return problems + _projection_problems(prediction)


def _projection_problems(prednet: dict) -> list[str]:
    """NeMo makes an LSTM with a projection where its hidden size is more than the prediction's."""
    hidden, output = prednet.get("rnn_hidden_size", -1), prednet.get("pred_hidden")
    return [] if hidden in (-1, None, output) else [f"decoder.prednet.rnn_hidden_size is {clipped(repr(hidden))}, not {output!r}"]


def _width_problems(encoder: dict) -> list[str]:
    """NeMo adds a linear layer behind the encoder where its output is not as wide as its layers."""
    output, width = encoder.get("feat_out", -1), encoder.get("d_model")
    return [] if output in (-1, None, width) else [f"encoder.feat_out is {clipped(repr(output))}, not {width!r}"]


def _offline_problems(encoder: dict, *, buffered: bool) -> list[str]:
    kernel, pairs, local = int(encoder.get("conv_kernel_size") or 31), contexts(encoder), not buffered and is_local(encoder)
    problems = [] if kernel % 2 else [f"encoder.conv_kernel_size is {kernel}, not odd"]
    problems += [] if local else _differing("encoder", encoder, _FULL_ATTENTION)
    symmetric = len(pairs) == 1 and pairs[0][0] == pairs[0][1] > 0
    if not buffered and not symmetric and (local or any(pair != [-1, -1] for pair in pairs)):
        wanted = "[w, w]" if local else "[-1, -1] or [w, w]"
        problems.append(f"encoder.att_context_size is {clipped(pairs)}, not {wanted}: attention of a limited width")
    return problems


def _window_problems(config: dict) -> list[str]:
    encoder, mel = config["encoder"], config["preprocessor"]
    found, factor = encoder.get("att_chunk_context_size"), encoder.get("subsampling_factor")
    problems = []
    menus = found if isinstance(found, list) and len(found) == 3 else [[]]
    if not all(
        isinstance(menu, list) and menu and all(type(n) is int and n >= least for n in menu)
        for menu, least in zip(menus, (0, 1, 0), strict=False)
    ):
        problems.append(f"encoder.att_chunk_context_size is {clipped(repr(found))}, not [left contexts, chunks, right contexts]")
    if isinstance(factor, int) and factor > 0 and (hop := frame_samples(mel, "window_stride")) % factor:
        problems.append(f"preprocessor.window_stride is {hop} samples, no multiple of {factor}: NeMo's windows leave its frames")
    return problems


def _context_problems(encoder: dict) -> list[str]:
    pairs, problems = contexts(encoder), _differing("encoder", encoder, _FULL_ATTENTION)
    if any(len(pair) != 2 or pair[0] <= 0 or pair[1] < 0 for pair in pairs):
        return [*problems, f"encoder.att_context_size is {clipped(pairs)}: not cache-aware (limited left and right contexts)"]
    lefts, rights = {left for left, _ in pairs}, {right for _, right in pairs}
    if len(lefts) > 1:
        problems.append(f"encoder.att_context_size has several left contexts {clipped(sorted(lefts))}, not one")
    if any(r + 2 in rights for r in rights):
        # The graph distinguishes a first chunk from a later one by its length, see encoder.py.
        problems.append(f"encoder.att_context_size has lookaheads r and r + 2 among {clipped(sorted(rights))}")
    return problems
