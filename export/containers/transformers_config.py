"""The config of a model of Hugging Face transformers, in the form of NeMo's model_config.yaml.

What transformers writes in no file follows from the class of a model: causal or centred convolutions, the kind of normalisation,
chunked attention. A key that is absent has its class's default. The lookaheads and the languages of a prompt are in the
processor's config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemoport.export.containers.transformers_families import (
    ANY_MODEL,
    CTC,
    FAMILIES,
    FEATURES,
    LOOKAHEADS,
    WITHOUT_EFFECT,
    Family,
    Values,
)
from nemoport.export.kinds import LOG_GUARD
from nemoport.text import clipped


def nemo_form(raw: dict, processor: dict, pieces: list[str]) -> tuple[dict, list[str]]:
    """Returns the config in NeMo's form, and the reasons for which the model is not exported that only transformers' form shows.

    raw: of config.json, with a model_type of FAMILIES; processor: the processor's config, which has `feature_extractor`; pieces:
    by id. Raises ValueError for values of another type than their default.
    """
    family = FAMILIES[raw["model_type"]]
    head = _values("config.json", raw, family.head)
    encoder = _values("encoder_config", _section(raw, "encoder_config"), family.encoder)
    features = _values("feature_extractor", found := _section(processor, "feature_extractor"), FEATURES)
    problems = [*_problems(family, head, encoder, features), *_unknown(raw, family)]
    if (extractor := found.get("feature_extractor_type")) not in (None, family.extractor):
        problems.append(f"feature_extractor_type is {clipped(repr(extractor))}, not {family.extractor!r}")
    return {
        "target": f"transformers.{family.nemo_class}",
        "preprocessor": _preprocessor(features, "NA" if family.streaming else "per_feature"),
        "encoder": _encoder(encoder, _contexts(processor, encoder) if family.streaming else [[-1, -1]], family.streaming),
        **(_ctc(encoder, pieces) if family.head is CTC else _transducer(head, pieces)),
        **(_prompt(head, processor) if family.prompted else {}),
    }, problems


def vocab_size(raw: dict) -> int:
    """Pieces of a model without blank. Raises ValueError as `nemo_form`."""
    return _values("config.json", raw, FAMILIES[raw["model_type"]].head)["vocab_size"] - 1


def _section(above: dict, name: str) -> dict:
    if not isinstance(found := above.get(name), dict):
        raise ValueError(f"no section {name}")
    return found


def _values(section: str, found: dict, defaults: Values) -> dict[str, Any]:
    """The values of a section, with defaults for absent ones, each of its default's type. Raises ValueError."""
    values = {key: default if found.get(key) is None else found[key] for key, default in defaults.items()}
    for key, value in values.items():
        kind = type(defaults[key])
        if type(value) is int and kind is float:
            values[key] = float(value)
        elif type(value) is not kind or (isinstance(value, list) and not all(type(one) is int for one in value)):
            raise ValueError(f"{section}.{key} is {clipped(repr(value))}, where {clipped(repr(defaults[key]))} is usual")
    return values


def _problems(family: Family, head: Values, encoder: Values, features: Values) -> Iterator[str]:
    required = {
        "hidden_act": "silu",
        "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2,
        "convolution_bias": encoder["attention_bias"],  # NeMo has one key for both
    }
    for key, value in required.items():
        if encoder[key] != value:
            yield f"encoder_config.{key} is {clipped(repr(encoder[key]))}, not {value!r}"
    if encoder["intermediate_size"] % max(encoder["hidden_size"], 1):
        yield f"encoder_config.intermediate_size is {encoder['intermediate_size']}, no multiple of hidden_size"
    if head[family.blank] != head["vocab_size"] - 1:
        yield f"{family.blank} is {head[family.blank]}, not {head['vocab_size'] - 1}, the last of vocab_size"
    if features["feature_size"] != encoder["num_mel_bins"]:
        yield f"feature_size is {features['feature_size']}, not the {encoder['num_mel_bins']} of num_mel_bins"
    if family.prompted and head["prompt_intermediate_size"] != 2 * encoder["hidden_size"]:
        yield f"prompt_intermediate_size is {head['prompt_intermediate_size']}, not {2 * encoder['hidden_size']}"


def _unknown(raw: dict, family: Family) -> Iterator[str]:
    """A reason for each option that is in no table here: it may change what the model computes."""
    for section, found, defaults in (
        ("config.json", raw, family.head),
        ("encoder_config", raw["encoder_config"], family.encoder),
    ):
        known = {*defaults, *WITHOUT_EFFECT[section].split(), *ANY_MODEL.split()}
        for key in sorted(found.keys() - known):
            if found[key] is not None:
                yield f"{section}: {clipped(key, 40)} is {clipped(repr(found[key]))}, an unknown option"


def _preprocessor(features: Values, normalize: str) -> dict:
    return {
        "sample_rate": features["sampling_rate"],
        "features": features["feature_size"],
        "n_fft": features["n_fft"],
        "n_window_size": features["win_length"],
        "n_window_stride": features["hop_length"],
        "window_size": None,
        "window_stride": None,
        "preemph": features["preemphasis"],
        "pad_value": features["padding_value"],
        "log_zero_guard_value": LOG_GUARD,
        "normalize": normalize,
    }


def _encoder(encoder: Values, contexts: list[list[int]], streaming: bool) -> dict:
    causal = {
        "att_context_style": "chunked_limited",
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        "causal_downsampling": True,
    }
    return {
        "n_layers": encoder["num_hidden_layers"],
        "d_model": encoder["hidden_size"],
        "n_heads": encoder["num_attention_heads"],
        "ff_expansion_factor": encoder["intermediate_size"] // max(encoder["hidden_size"], 1),
        "conv_kernel_size": encoder["conv_kernel_size"],
        "subsampling": "dw_striding",
        "subsampling_factor": encoder["subsampling_factor"],
        "subsampling_conv_channels": encoder["subsampling_conv_channels"],
        "pos_emb_max_len": encoder["max_position_embeddings"],
        "use_bias": encoder["attention_bias"],
        "xscaling": encoder["scale_input"],
        "att_context_size": contexts,
        **(causal if streaming else {}),
    }


def _contexts(processor: dict, encoder: Values) -> list[list[int]]:
    """[left, right] of each lookahead, the default first."""
    found = _values("processor", processor, {"supported_num_lookahead_tokens": LOOKAHEADS})["supported_num_lookahead_tokens"]
    default = _values("processor", processor, {"default_num_lookahead_tokens": found[0] if found else 0})
    first = default["default_num_lookahead_tokens"]
    if first not in found:
        raise ValueError(f"default_num_lookahead_tokens is {first}, none of {clipped(found)}")
    rights = dict.fromkeys([first, *found])
    return [[encoder["sliding_window"] - 1, right] for right in rights]


def _ctc(encoder: Values, pieces: list[str]) -> dict:
    return {
        "decoder": {"feat_in": encoder["hidden_size"], "num_classes": len(pieces), "vocabulary": pieces},
        "decoding": {"strategy": "greedy_batch"},
    }


def _transducer(head: Values, pieces: list[str]) -> dict:
    durations, hidden = head.get("durations", []), head["decoder_hidden_size"]
    return {
        "decoder": {"prednet": {"pred_hidden": hidden, "pred_rnn_layers": head["num_decoder_layers"]}},
        "joint": {
            # NeMo names the joint's last layer joint_net.2 where there is dropout before it.
            "jointnet": {"joint_hidden": hidden, "activation": head["hidden_act"], "dropout": 0.2},
            "num_extra_outputs": len(durations),
            "vocabulary": pieces,
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": head["max_symbols_per_step"]}},
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": durations}} if durations else {"loss_name": "default"},
    }


def _prompt(head: Values, processor: dict) -> dict:
    """With tags of languages left out of texts, as transformers' processor leaves them out."""
    defaults = {
        "initialize_prompt_feature": True,
        "num_prompts": head["num_prompts"],
        "prompt_dictionary": processor.get("prompt_dictionary"),
    }
    return {"model_defaults": defaults, "decoding": _transducer(head, [])["decoding"] | {"strip_lang_tags": True}}
