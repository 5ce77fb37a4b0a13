"""The model types of Hugging Face transformers that are read, and the defaults of their classes.

A config need not hold a key that has its class's default. tests/test_transformers_folder.py compares the defaults with those of
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
ENCODER: Values = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "intermediate_size": 4096,
    "hidden_act": "silu",
    "attention_bias": True,
    "convolution_bias": True,
    "conv_kernel_size": 9,
    "subsampling_factor": 8,
    "subsampling_conv_channels": 256,
    "num_mel_bins": 80,
    "subsampling_conv_kernel_size": 3,
    "subsampling_conv_stride": 2,
    "max_position_embeddings": 5000,
    "scale_input": True,
}
STREAMING_ENCODER: Values = {**ENCODER, "sliding_window": 71}
CTC: Values = {"vocab_size": 1025, "pad_token_id": 1024}
RNNT: Values = {
    "vocab_size": 8193,
    "decoder_hidden_size": 640,
    "num_decoder_layers": 2,
    "hidden_act": "relu",
    "max_symbols_per_step": 10,
    "blank_token_id": 8192,
}
PROMPT: Values = {"num_prompts": 128, "prompt_intermediate_size": 2048}
FEATURES: Values = {
    "feature_size": 80,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 512,
    "win_length": 400,
    "preemphasis": 0.97,
    "padding_value": 0.0,
}
LOOKAHEADS = [13, 6, 1, 0]  # where the processor's config has none
# Without effect on what a model computes, or of training alone.
WITHOUT_EFFECT = {
    "encoder_config": "activation_dropout attention_dropout dropout dropout_positions initializer_range layerdrop "
    "num_key_value_heads default_num_lookahead_tokens supported_num_lookahead_tokens",
    "config.json": "encoder_config initializer_range ctc_loss_reduction ctc_zero_infinity default_prompt_id pad_token_id "
    "decoder_start_token_id bos_token_id eos_token_id use_cache",
    "feature_extractor": "feature_extractor_type padding_side return_attention_mask processor_class mel_filters_dtype",
}
ANY_MODEL = (  # that transformers writes for every model, whatever it is
    "_name_or_path architectures attn_implementation _attn_implementation_autoset chunk_size_feed_forward dtype torch_dtype "
    "id2label label2id is_encoder_decoder is_decoder model_type output_attentions output_hidden_states problem_type return_dict "
    "transformers_version tie_word_embeddings torchscript use_bfloat16 tokenizer_class"
)


@dataclass(frozen=True)
class Family:
    """A model type that is read. nemo_class: of the same model; head: defaults of its own keys; prompted: whether it takes a
    language; streaming: whether it is cache-aware; extractor: the feature extractor, which alone decides whether frames are
    normalised; blank: key of the blank's id."""

    nemo_class: str
    head: Values
    streaming: bool = False
    prompted: bool = False
    blank: str = "blank_token_id"

    @property
    def encoder(self) -> Values:
        return STREAMING_ENCODER if self.streaming else ENCODER

    @property
    def extractor(self) -> str:
        return "NemotronAsrStreamingFeatureExtractor" if self.streaming else "ParakeetFeatureExtractor"


_TRANSDUCER, _PROMPTED = "EncDecRNNTBPEModel", "EncDecRNNTBPEModelWithPrompt"
_NEMOTRON_EN: Values = {**RNNT, "vocab_size": 1025, "blank_token_id": 1024}
FAMILIES = {
    "parakeet_ctc": Family("EncDecCTCModelBPE", CTC, blank="pad_token_id"),
    "parakeet_rnnt": Family(_TRANSDUCER, RNNT),
    "parakeet_tdt": Family(_TRANSDUCER, {**RNNT, "durations": [0, 1, 2, 3, 4]}),
    "nemotron_asr_streaming": Family(_TRANSDUCER, _NEMOTRON_EN, streaming=True),
    "nemotron3_5_asr": Family(
        _PROMPTED, {**RNNT, **PROMPT, "vocab_size": 13088, "blank_token_id": 13087}, streaming=True, prompted=True
    ),
}
