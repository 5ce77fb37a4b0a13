"""The options of NeMo's modules: which have no effect at inference, and which are unknown. An option that is in no table here or
in kinds.py is refused by its name, because it may change what the model computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nemoport.text import clipped


@dataclass(frozen=True)
class Module:
    """A module of NeMo's, or a part of its settings.

    name: its class, "" for a part. read: the options of which the spec, the graphs and NeMo's config are made, beside those that
    kinds.py requires. without_effect: those for training alone, for speed and memory, sizes that follow from others, or set by
    NeMo itself whatever their value. Both are names with spaces between.
    """

    name: str
    read: str
    without_effect: str


# By section of a config; "ctc.decoder" is the section `decoder` of a CTC model.
MODULES = {
    "preprocessor": Module(
        "AudioToMelSpectrogramPreprocessor",
        "sample_rate features n_fft window_size window_stride n_window_size n_window_stride preemph log_zero_guard_value",
        "dither pad_to rng nb_augmentation_prob nb_max_freq use_torchaudio stft_exact_pad stft_conv",
    ),
    "encoder": Module(
        "ConformerEncoder",
        "n_layers d_model n_heads conv_kernel_size subsampling_conv_channels ff_expansion_factor pos_emb_max_len "
        "self_attention_model att_context_size use_bias xscaling feat_out",
        "feat_in subsampling_conv_chunking_factor reduction_position reduction_factor att_context_probs "
        "conv_context_style dropout dropout_pre_encoder dropout_emb dropout_att stochastic_depth_drop_prob stochastic_depth_mode "
        "stochastic_depth_start_layer global_tokens_spacing global_attn_separate use_pytorch_sdpa use_pytorch_sdpa_backends "
        "sync_max_audio_length",
    ),
    "decoder": Module("RNNTDecoder", "prednet", "vocab_size random_state_sampling"),
    "ctc.decoder": Module("ConvASRDecoder", "vocabulary", "feat_in num_classes init_mode"),
    "joint": Module(
        "RNNTJoint",
        "jointnet vocabulary num_extra_outputs",
        "num_classes log_softmax preserve_memory fuse_loss_wer fused_batch_size experimental_fuse_loss_wer masking_prob",
    ),
    "decoder.prednet": Module(
        "",
        "pred_hidden pred_rnn_layers dropout rnn_hidden_size",
        "t_max forget_gate_bias weights_init_scale hidden_hidden_bias_scale",
    ),
    "joint.jointnet": Module("", "joint_hidden activation dropout", "encoder_hidden pred_hidden"),
}


def component_problems(section: str, found: dict, module: Module) -> list[str]:
    """A reason if NeMo builds a section's module from another class than the exported one."""
    target = str(found.get("_target_", "")).rpartition(".")[2]
    return [] if target in ("", module.name) else [f"{section}._target_ is {clipped(target)}, not {module.name}"]


def tokenizer_problems(found: dict) -> list[str]:
    """A reason for each thing by which a tokenizer is none of SentencePiece alone."""
    kind = "agg" if found.get("langs") else str(found.get("type") or "bpe").lower()
    problems = [] if kind == "bpe" else [f"tokenizer.type is {clipped(repr(kind))}, not 'bpe'"]
    others = [key for key in ("custom_tokenizer", "special_tokens") if found.get(key)]
    return problems + [f"tokenizer.{key} is {clipped(repr(found[key]))}, not absent" for key in others]


def unknown_options(section: str, found: Any, module: Module, required: Iterable[str] = ()) -> list[str]:
    """A reason for each option that is not null and neither known of the module nor among `required`."""
    if not isinstance(found, dict):
        return []
    known = {"_target_", *module.read.split(), *module.without_effect.split(), *required}
    others = [key for key, value in found.items() if value is not None and key not in known]
    return [f"{section}.{clipped(str(key), 40)} is {clipped(repr(found[key]))}, an unknown option" for key in others]
