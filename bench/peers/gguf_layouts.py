"""The GGUF files of CrispASR (CrispStrobe/CrispASR) and of transcribe.cpp (handy-computer/transcribe.cpp), from a checkpoint.

Names and metadata are those that their loaders ask for (src/nemotron.cpp, src/parakeet.cpp, src/canary_ctc.cpp;
src/arch/parakeet/weights.cpp), as read in August 2026.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gguf_file import Signed, Tensors, Value

from nemoport.export.checkpoint import Checkpoint
from nemoport.export.hyperparameters import number
from nemoport.export.sentencepiece_model import read_model
from nemoport.spec import CTC

Layout = tuple[dict[str, Value], Tensors]
# A layer's modules, in NeMo's names and in those of (CrispASR, transcribe.cpp).
_LAYER = {
    "norm_feed_forward1": ("norm_ff1", "norm_ff1"),
    "feed_forward1": ("ff1", "ff1"),
    "norm_self_att": ("norm_attn", "norm_attn"),
    "self_attn.linear_q": ("attn.q", "attn.linear_q"),
    "self_attn.linear_k": ("attn.k", "attn.linear_k"),
    "self_attn.linear_v": ("attn.v", "attn.linear_v"),
    "self_attn.linear_out": ("attn.out", "attn.linear_out"),
    "self_attn.linear_pos": ("attn.pos", "attn.linear_pos"),
    "self_attn": ("attn", "attn"),
    "norm_conv": ("norm_conv", "norm_conv"),
    "conv.pointwise_conv1": ("conv.pw1", "conv.pointwise1"),
    "conv.depthwise_conv": ("conv.dw", "conv.depthwise"),
    "conv.pointwise_conv2": ("conv.pw2", "conv.pointwise2"),
    "conv.batch_norm": ("conv.bn", "conv.bn"),
    "norm_feed_forward2": ("norm_ff2", "norm_ff2"),
    "feed_forward2": ("ff2", "ff2"),
    "norm_out": ("norm_out", "norm_out"),
}
_CTC_HEAD = "decoder.decoder_layers.0."
_LSTM = "decoder.prediction.dec_rnn.lstm."


def crispasr(checkpoint: Checkpoint, half: bool) -> Layout:
    """half: matrices in f16, as its own converters write them. Raises ValueError for a kind that it does not read."""
    ctc = checkpoint.spec.head == CTC
    streaming, frontend, encoder = checkpoint.spec.streaming, checkpoint.spec.frontend, checkpoint.spec.encoder
    if ctc and streaming:
        raise ValueError("CrispASR has no causal subsampling before a CTC decoder")
    arch = "canary-ctc" if ctc else "nemotron" if streaming else "parakeet"
    key, vocabulary = arch.replace("-", "_"), len(checkpoint.tokens)
    metadata: dict[str, Value] = {
        "general.architecture": arch,
        **{f"{key}.{name}": value for name, value in _shared(checkpoint).items()},
        f"{key}.sample_rate": frontend.sample_rate_hz,
        f"{key}.n_mels": frontend.n_mels,
        f"{key}.n_fft": frontend.n_fft,
        f"{key}.win_length": frontend.win_samples,
        f"{key}.hop_length": frontend.hop_samples,
        f"{key}.ff_dim": encoder.d_model * number(checkpoint.config, "encoder.ff_expansion_factor"),
        f"{key}.head_dim": encoder.d_model // encoder.n_heads,
        f"{key}.vocab_size": vocabulary,
        f"{key}.blank_id": vocabulary,
        f"{key}.frame_dur_cs": round(100 * checkpoint.spec.frame_seconds),
        "tokenizer.ggml.tokens": list(checkpoint.tokens),
    }
    scaled = _scaled(checkpoint)
    if ctc:
        metadata |= {f"{key}.xscaling": int(scaled), f"{key}.conv_norm_layer": 0}
    else:
        decoding = checkpoint.spec.decoding
        metadata |= {
            f"{key}.xscaling": scaled,
            f"{key}.pred_hidden": decoding.pred_hidden,
            f"{key}.pred_layers": decoding.pred_layers,
            f"{key}.joint_hidden": decoding.joint_hidden,
            f"{key}.n_tdt_durations": len(decoding.durations),
            f"{key}.tdt_durations": list(decoding.durations),
        }
    if streaming:
        metadata |= {
            f"{key}.causal_downsampling": True,
            f"{key}.n_att_context_presets": len(streaming.lookaheads),
            f"{key}.att_context_left": [streaming.left_context_enc_frames] * len(streaming.lookaheads),
            f"{key}.att_context_right": list(streaming.lookaheads),
        }
    elif window := checkpoint.spec.require_offline().attention_enc_frames:
        metadata |= {f"{key}.att_context_left": Signed(window), f"{key}.att_context_right": Signed(window)}
    prompt, weights = checkpoint.spec.prompt, _weights(checkpoint)
    if prompt:
        middle, into = weights["prompt_kernel.0.weight"].shape
        metadata |= {f"{key}.num_prompts": prompt.slots, f"{key}.prompt_kernel_in": into, f"{key}.prompt_kernel_mid": middle}
        metadata |= {f"{key}.prompt_langs": list(prompt.languages), f"{key}.prompt_ids": list(prompt.languages.values())}
    own = {
        "preprocessor.featurizer.": "preprocessor.",
        "encoder.pre_encode.": "encoder.pre.",
        "decoder.prediction.embed.": "decoder.embed.",
        "joint.joint_net.2.": "joint.out.",
        "joint.": "joint.",
        "prompt_kernel.": "prompt_kernel.",
    }
    if ctc:
        own = {name: new for name, new in own.items() if not name.startswith(("decoder", "joint"))}
        own[_CTC_HEAD] = "ctc."
    tensors = _renamed(weights, own, "encoder.layers", 0)
    for name, weight in {} if ctc else weights.items():
        if name.startswith(_LSTM):  # weight_ih_l0 -> decoder.lstm.0.w_ih
            kind, gates, layer = name.removeprefix(_LSTM).split("_")
            tensors[f"decoder.lstm.{layer[1:]}.{kind[0]}_{gates}"] = weight
    for i in range(encoder.n_layers):
        tensors.setdefault(f"encoder.layers.{i}.conv.dw.bias", np.zeros(encoder.d_model, np.float32))
    if streaming:
        # Its streaming model does not scale the encoder's input.
        factor = np.float32(np.sqrt(encoder.d_model)) if scaled else np.float32(1)
        tensors |= {name: tensors[name] * factor for name in ("encoder.pre.out.weight", "encoder.pre.out.bias")}
        tensors = {name.replace(".conv.bn.", ".conv.ln."): tensor for name, tensor in tensors.items()}
    if ctc:
        tensors["ctc.weight"] = tensors["ctc.weight"][:, :, 0]
    keep = ("preprocessor.", "encoder.pre.") if streaming else ("preprocessor.",)

    def is_matrix(name: str, tensor: np.ndarray) -> bool:
        plain = name.startswith(keep) or "norm" in name or ".pos_bias_" in name or name.endswith("bias")
        return tensor.ndim > 1 and not plain

    if half:
        tensors = {n: t.astype(np.float16) if is_matrix(n, t) else t for n, t in tensors.items()}
    return metadata, {name: np.squeeze(t, 0) if name == "preprocessor.fb" else t for name, t in tensors.items()}


def transcribe_cpp(checkpoint: Checkpoint, half: bool) -> Layout:
    """Everything in f32, as its own converter writes it. half: refused, by ValueError."""
    ctc = checkpoint.spec.head == CTC
    if half:
        raise ValueError("transcribe.cpp's converter writes f32 alone")
    streaming, frontend, encoder = checkpoint.spec.streaming, checkpoint.spec.frontend, checkpoint.spec.encoder
    weights, config = _weights(checkpoint), checkpoint.config
    head = "ctc" if ctc else "tdt" if checkpoint.spec.decoding.durations else "rnnt"
    types = {0: 1} | {i: kind for i, (_, kind) in enumerate(read_model(checkpoint.tokenizer).pieces)}
    metadata: dict[str, Value] = {
        "general.architecture": "parakeet",
        "general.languages": list(checkpoint.spec.prompt.languages) if checkpoint.spec.prompt else ["en"],
        "stt.variant": "nemoport",
        "stt.parakeet.head_kind": head,
        "tokenizer.ggml.model": "bpe",
        "tokenizer.ggml.tokens": [*checkpoint.tokens, "<blank>"],
        "tokenizer.ggml.scores": [0.0] * (len(checkpoint.tokens) + 1),
        "tokenizer.ggml.token_type": [*(types[i] for i in range(len(checkpoint.tokens))), 3],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.blank_token_id": len(checkpoint.tokens),
    }
    geometry: dict[str, Value] = {
        **_shared(checkpoint),
        "d_ff": encoder.d_model * number(config, "encoder.ff_expansion_factor"),
        "pos_emb_max_len": number(config, "encoder.pos_emb_max_len"),
        "use_bias": "encoder.layers.0.feed_forward1.linear1.bias" in weights,
        "xscaling": _scaled(checkpoint),
    }
    if streaming:
        rights = sorted(streaming.lookaheads, reverse=True)  # its first is the default, and must be the largest
        left = streaming.left_context_enc_frames
        geometry |= {
            "att_context_style": "chunked_limited",
            "att_context_left": Signed(left),
            "att_context_right": Signed(rights[0]),
            "att_context_size_choices": [n for right in rights for n in (left, right)],
            "conv_context_left": Signed(streaming.conv_cache_frames),
            "conv_context_right": Signed(0),
            "conv_norm_type": "layer_norm",
            "streaming.pre_encode_cache_size": Signed(streaming.pre_encode_cache_mel_frames),
            "streaming.drop_extra_pre_encoded": Signed(streaming.drop_enc_frames),
            "streaming.sampling_frames_first": Signed(1),
        }
    elif window := checkpoint.spec.require_offline().attention_enc_frames:
        geometry |= {"att_context_left": Signed(window), "att_context_right": Signed(window)}
    metadata |= {f"stt.parakeet.encoder.{name}": value for name, value in geometry.items()}
    own = {"encoder.pre_encode.": "enc.pre_encode."}
    if ctc:
        own[_CTC_HEAD] = "head.ctc."
    else:
        decoding = checkpoint.spec.decoding
        metadata |= {
            "stt.parakeet.predictor.hidden": decoding.pred_hidden,
            "stt.parakeet.predictor.n_layers": decoding.pred_layers,
            "stt.parakeet.predictor.vocab": len(checkpoint.tokens) + 1,
            "stt.parakeet.joint.hidden": decoding.joint_hidden,
            "stt.parakeet.joint.num_extra_outputs": len(decoding.durations),
            "stt.parakeet.joint.activation": "relu",
        }
        if decoding.durations:
            metadata |= {
                "stt.parakeet.tdt.durations": list(decoding.durations),
                "stt.parakeet.tdt.max_symbols": decoding.max_symbols_per_frame,
            }
        own |= {"decoder.prediction.embed.": "pred.embed.", "joint.joint_net.2.": "joint.out.", "joint.": "joint."}
    if prompt := checkpoint.spec.prompt:
        own["prompt_kernel."] = "prompt.mlp."
        metadata |= {
            "stt.parakeet.prompt.num_prompts": prompt.slots,
            "stt.parakeet.prompt.hidden": weights["prompt_kernel.0.weight"].shape[0],
            "stt.parakeet.prompt.field": "target_lang",
            "stt.parakeet.prompt.activation": "relu",
            "stt.parakeet.prompt.dictionary.locales": list(prompt.languages),
            "stt.parakeet.prompt.dictionary.indices": list(prompt.languages.values()),
            "stt.parakeet.prompt.auto_id": prompt.languages["auto"],
        }
    metadata |= {
        "stt.frontend.type": "mel",
        "stt.frontend.num_mels": frontend.n_mels,
        "stt.frontend.sample_rate": frontend.sample_rate_hz,
        "stt.frontend.n_fft": frontend.n_fft,
        "stt.frontend.win_length": frontend.win_samples,
        "stt.frontend.hop_length": frontend.hop_samples,
        "stt.frontend.window": "hann",
        "stt.frontend.normalize": "none" if frontend.normalize == "NA" else frontend.normalize,
        "stt.frontend.dither": 0.0,
        "stt.frontend.pre_emphasis": frontend.preemphasis,
        "stt.frontend.f_min": 0.0,
        "stt.frontend.f_max": frontend.sample_rate_hz / 2,
    }
    tensors = _renamed(weights, own, "enc.blocks", 1)
    for i in range(0 if ctc else checkpoint.spec.decoding.pred_layers):
        tensors[f"pred.lstm.{i}.Wx"] = weights[f"{_LSTM}weight_ih_l{i}"]
        tensors[f"pred.lstm.{i}.Wh"] = weights[f"{_LSTM}weight_hh_l{i}"]
        tensors[f"pred.lstm.{i}.bias"] = weights[f"{_LSTM}bias_ih_l{i}"] + weights[f"{_LSTM}bias_hh_l{i}"]
    return metadata, tensors


LAYOUTS: dict[str, Callable[..., Layout]] = {"crispasr": crispasr, "transcribe-cpp": transcribe_cpp}


def _weights(checkpoint: Checkpoint) -> Tensors:
    return {n: t.numpy() for n, t in checkpoint.load_weights().items() if not n.endswith("num_batches_tracked")}


def _scaled(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.config["encoder"].get("xscaling", True))


def _shared(checkpoint: Checkpoint) -> dict[str, Value]:
    """Sizes that both name alike."""
    encoder = checkpoint.spec.encoder
    return {
        "n_layers": encoder.n_layers,
        "d_model": encoder.d_model,
        "n_heads": encoder.n_heads,
        "conv_kernel": number(checkpoint.config, "encoder.conv_kernel_size"),
        "subsampling_factor": encoder.subsampling_factor,
        "subsampling_channels": number(checkpoint.config, "encoder.subsampling_conv_channels"),
    }


def _renamed(weights: Tensors, own: dict[str, str], layers: str, column: int) -> Tensors:
    """Tensors of layers, and those below a prefix of `own`, by their new names. column: of _LAYER."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("encoder.layers."):
            index, rest = name.removeprefix("encoder.layers.").split(".", 1)
            old = max((module for module in _LAYER if rest.startswith(f"{module}.")), key=len)
            renamed[f"{layers}.{index}.{_LAYER[old][column]}{rest.removeprefix(old)}"] = tensor
        elif prefix := max((prefix for prefix in own if name.startswith(prefix)), key=len, default=""):
            renamed[own[prefix] + name.removeprefix(prefix)] = tensor
    return renamed
