"""The options of NeMo's modules: which have no effect at inference, and which are unknown. An option that is in no table here or
in kinds.py is refused by its name, because it may change what the model computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nemoport.text import clipped

COMPONENTS = {
    "preprocessor": "AudioToMelSpectrogramPreprocessor",
    "encoder": "ConformerEncoder",
    "decoder": "RNNTDecoder",
    "joint": "RNNTJoint",
}
# Read where the spec, the graphs and NeMo's config are made; with those that kinds.py requires.
READ = {
    "preprocessor": "sample_rate features n_fft window_size window_stride n_window_size n_window_stride preemph "
    "log_zero_guard_value",
    "encoder": "n_layers d_model n_heads conv_kernel_size subsampling_conv_channels ff_expansion_factor pos_emb_max_len "
    "att_context_size use_bias xscaling feat_out",
    "decoder": "prednet",
    "joint": "jointnet vocabulary num_extra_outputs",
    "decoder.prednet": "pred_hidden pred_rnn_layers dropout rnn_hidden_size",
    "joint.jointnet": "joint_hidden activation dropout",
}
# For training alone, for speed and memory, sizes that follow from others, or set by NeMo itself whatever their value.
WITHOUT_EFFECT = {
    "preprocessor": "dither pad_to rng nb_augmentation_prob nb_max_freq use_torchaudio stft_exact_pad stft_conv",
    "encoder": "feat_in subsampling_conv_chunking_factor reduction_position reduction_factor att_context_probs "
    "conv_context_style dropout dropout_pre_encoder dropout_emb dropout_att stochastic_depth_drop_prob stochastic_depth_mode "
    "stochastic_depth_start_layer global_tokens_spacing global_attn_separate use_pytorch_sdpa use_pytorch_sdpa_backends "
    "sync_max_audio_length",
    "decoder": "vocab_size random_state_sampling",
    "joint": "num_classes log_softmax preserve_memory fuse_loss_wer fused_batch_size experimental_fuse_loss_wer masking_prob",
    "decoder.prednet": "t_max forget_gate_bias weights_init_scale hidden_hidden_bias_scale",
    "joint.jointnet": "encoder_hidden pred_hidden",
}


def component_problems(section: str, found: dict) -> list[str]:
    """A reason if NeMo builds a section's module from another class than the exported one."""
    target, needed = str(found.get("_target_", "")).rpartition(".")[2], COMPONENTS[section]
    return [] if target in ("", needed) else [f"{section}._target_ is {clipped(target)}, not {needed}"]


def tokenizer_problems(found: dict) -> list[str]:
    """A reason for each thing by which a tokenizer is none of SentencePiece alone."""
    kind = "agg" if found.get("langs") else str(found.get("type") or "bpe").lower()
    problems = [] if kind == "bpe" else [f"tokenizer.type is {clipped(repr(kind))}, not 'bpe'"]
    others = [key for key in ("custom_tokenizer", "special_tokens") if found.get(key)]
    return problems + [f"tokenizer.{key} is {clipped(repr(found[key]))}, not absent" for key in others]


def unknown_options(section: str, found: Any, required: Iterable[str] = ()) -> list[str]:
    """A reason for each option that is not null and neither in a table here nor among `required`."""
    if not isinstance(found, dict):
        return []
    known = {"_target_", *READ[section].split(), *WITHOUT_EFFECT[section].split(), *required}
    others = [key for key, value in found.items() if value is not None and key not in known]
    return [f"{section}.{clipped(str(key), 40)} is {clipped(repr(found[key]))}, an unknown option" for key in others]
